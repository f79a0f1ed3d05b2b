"""The expression language of templates: Python expressions with `$`, bounded and without eval."""

from machina.expressions.budget import DEFAULT_LIMITS, Limits
from machina.expressions.expression import Expression, compile_expression, evaluate, is_true
from machina.expressions.scope import Scope, Subject
from machina.expressions.subjects import ConnectorResult, FreeText

__all__ = [
    "DEFAULT_LIMITS",
    "ConnectorResult",
    "Expression",
    "FreeText",
    "Limits",
    "Scope",
    "Subject",
    "compile_expression",
    "evaluate",
    "is_true",
]
