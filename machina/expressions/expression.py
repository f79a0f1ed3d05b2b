"""Evaluates what authors write: one expression, or any value of a definition leaf by leaf."""

from __future__ import annotations

from typing import Any

from machina.errors import BudgetExceeded, ExpressionFailed
from machina.expressions.budget import DEFAULT_LIMITS, Budget, Limits
from machina.expressions.cache import SourceCache
from machina.expressions.compiler import Compiled, compile_key_text, compile_text
from machina.expressions.result import settle
from machina.expressions.scope import Scope
from machina.expressions.texts import text_of

_CACHED_CHARACTERS = 1_000_000  # of sources; the whole public corpus fits
_MAX_QUOTED = 200  # characters of an expression in an error
# Messages of these speak of types and lengths. Others may repeat data, which may be secret.
_SPEAKING = (TypeError, AttributeError, ArithmeticError, IndexError)


class Expression:
    """A text from a definition, compiled once and evaluated many times. Never changes."""

    __slots__ = ("_compiled", "source")

    def __init__(self, source: str, compiled: Compiled) -> None:
        self.source = source
        self._compiled = compiled

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    @property
    def is_literal(self) -> bool:
        """Whether the text stands for itself because it is no expression."""
        return self._compiled.is_literal

    @property
    def problem(self) -> str | None:
        """What its author should know, else None: why it is refused, or taken as text."""
        return self._compiled.problem

    @property
    def is_suspect(self) -> bool:
        """Whether it looks like code and is not: worth a line in the log."""
        return self._compiled.problem is not None

    def evaluate(self, scope: Scope, *, where: str = "", limits: Limits = DEFAULT_LIMITS) -> Any:
        """The value in a scope; `where` says in errors what the expression belongs to.

        Raises ExpressionFailed when it is refused or raises, with the original error as its
        cause, and BudgetExceeded when it needs more than the limits allow.
        """
        compiled = self._compiled
        closure = compiled.closure
        if closure is None:
            if compiled.is_refused:
                raise self._failure(where, compiled.problem or "")
            return self.source
        budget = Budget(limits)
        try:
            value = closure([scope, budget, None])
            return settle(value, budget) if compiled.must_settle else value
        except BudgetExceeded as error:
            raise BudgetExceeded(self._message(where, error.message)) from error
        except (RecursionError, MemoryError) as error:
            reason = "it needs too much memory or is nested too deeply"
            raise BudgetExceeded(self._message(where, reason)) from error
        except Exception as error:
            raise self._failure(where, _reason(error), type(error).__name__) from error

    def _failure(self, where: str, reason: str, kind: str = "") -> ExpressionFailed:
        details = {"expression": _quoted(self.source), "where": where, "error": kind}
        return ExpressionFailed(self._message(where, reason), details=details)

    def _message(self, where: str, reason: str) -> str:
        place = f" in {where}" if where else ""
        return f"Expression `{_quoted(self.source)}`{place} failed: {reason}"


def compile_expression(source: str) -> Expression:
    """The expression of a text, from a bounded cache. Never raises: errors come with evaluation."""
    return _expressions(source)


def evaluate(value: Any, scope: Scope, *, where: str = "", limits: Limits = DEFAULT_LIMITS) -> Any:
    """Evaluates any value of a definition: texts as expressions, dicts and lists leaf by leaf.

    Keys are evaluated only when they hold code. Everything else is returned as it is. Raises
    as `Expression.evaluate` does, for the first leaf that fails.
    """
    kind = type(value)
    if kind is str:
        return compile_expression(value).evaluate(scope, where=where, limits=limits)
    if kind is dict:
        return {
            _evaluated_key(key, scope, where, limits): evaluate(
                part, scope, where=f"{where}.{key}" if where else str(key), limits=limits
            )
            for key, part in value.items()
        }
    if kind is list:
        return [
            evaluate(part, scope, where=f"{where}[{position}]", limits=limits)
            for position, part in enumerate(value)
        ]
    return value


def is_true(value: Any, scope: Scope, *, where: str = "", limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether a condition holds. Raises as `evaluate` does; the caller decides what that means.

    Text that looks like code but was not understood would always be true; it raises instead.
    """
    if type(value) is str:
        expression = compile_expression(value)
        if expression.problem is not None:
            raise expression._failure(where, expression.problem)
        return bool(expression.evaluate(scope, where=where, limits=limits))
    return bool(evaluate(value, scope, where=where, limits=limits))


def _evaluated_key(key: Any, scope: Scope, where: str, limits: Limits) -> Any:
    if type(key) is not str or "$" not in key:
        return key
    expression = _keys(key)
    if expression.is_literal:
        return key
    return text_of(Budget(limits), expression.evaluate(scope, where=f"{where} key", limits=limits))


def _quoted(source: str) -> str:
    text = " ".join(source.split())
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"


def _reason(error: Exception) -> str:
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, _SPEAKING) and str(error) else kind


_expressions = SourceCache(
    lambda source: Expression(source, compile_text(source)), max_characters=_CACHED_CHARACTERS
)
_keys = SourceCache(
    lambda source: Expression(source, compile_key_text(source)),
    max_characters=_CACHED_CHARACTERS // 10,
)
