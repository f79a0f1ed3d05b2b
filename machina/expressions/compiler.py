"""From the author's text to a closure: scan, parse, check, compile. Nothing is evaluated here."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from machina.expressions import calls, displays, fstrings, logic, loops, names
from machina.expressions.closure import Builder, Closure, Frame, Handler
from machina.expressions.functions import FUNCTIONS
from machina.expressions.grammar import CONSTANT_NAMES, CONTEXT, check, parts_of
from machina.expressions.result import needs_settling
from machina.expressions.source import Source, scan, text_parts

MAX_SOURCE = 32_768  # characters; longer texts are text
MAX_BRACKETS = 60  # of them inside each other

_SECRET = re.compile(r"\$[A-Z][A-Z0-9_]*_CONTEXT_VARIABLE_[A-Z0-9_]+")
_MAX_SECRET = 200  # characters of a token: a bound for the pattern above
_CODE_MARKS = ("$.get(", "$.context", "context.get(")
_OPENINGS = ("{", "[", "(", "'", '"', "f'", 'f"')

_HANDLERS: dict[type[ast.AST], Handler] = {
    ast.Constant: names.constant,
    ast.Name: names.name,
    ast.Attribute: names.attribute,
    ast.JoinedStr: fstrings.joined_text,
    ast.FormattedValue: fstrings.field,
    ast.BoolOp: logic.boolean,
    ast.Compare: logic.comparison,
    ast.IfExp: logic.conditional,
    ast.BinOp: logic.binary,
    ast.UnaryOp: logic.unary,
    ast.Subscript: logic.subscript,
    ast.Slice: logic.bounds,
    ast.List: displays.list_display,
    ast.Tuple: displays.tuple_display,
    ast.Set: displays.set_display,
    ast.Dict: displays.dict_display,
    ast.ListComp: loops.list_comprehension,
    ast.SetComp: loops.set_comprehension,
    ast.DictComp: loops.dict_comprehension,
    ast.GeneratorExp: loops.generator,
    ast.Lambda: loops.lambda_function,
    ast.Call: calls.call,
}


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a text turned out to be.

    Without a closure it is a literal, or, with `is_refused`, code that may not run. `problem`
    says what an author should know: why it may not run, or why it was taken as text although
    it looks like code.
    """

    closure: Closure | None = None
    must_settle: bool = False
    is_literal: bool = False
    is_refused: bool = False
    problem: str | None = None


def compile_text(text: str) -> Compiled:
    """Decides between secret token, literal text and expression, and compiles the latter."""
    stripped = text.strip()
    if len(stripped) <= _MAX_SECRET and _SECRET.fullmatch(stripped):
        return Compiled(closure=_secret(stripped[1:]))
    if len(stripped) > MAX_SOURCE:
        return _unparsable(text, f"it is longer than {MAX_SOURCE:,} characters")
    source = scan(stripped)
    tree = _parse(source)
    if tree is None:
        return _unparsable(text, "it cannot be parsed")
    if _is_plain_word(tree.body, source):
        return _literal(text)
    return _compile(text, tree, source)


def compile_key_text(text: str) -> Compiled:
    """Compiles the key of a dict in a definition: fields in braces are filled in as in f-strings.

    Most keys are names and stay as they are. A key that is an expression by itself, such as
    `$.get('name')` or an f-string, is one.
    """
    if not any(mark in text for mark in (*_CODE_MARKS, "$.(")):
        return Compiled(is_literal=True)
    if text.lstrip().startswith(("$", "f'", 'f"')):
        compiled = compile_text(text)
        if compiled.closure and not compiled.is_literal:
            return compiled
    for quote in ('"""', "'''"):
        if quote not in text and not text.endswith(quote[0]):
            return compile_text(f"f{quote}{text}{quote}")
    return _refused("it cannot be parsed")


def _compile(text: str, tree: ast.Expression, source: Source) -> Compiled:
    findings = check(tree, source)
    if findings.unknown is not None:
        return _literal(text, f"{findings.unknown!r} is no known name, so it is taken as text")
    if findings.refusal is not None:
        return _refused(findings.refusal)
    if _is_only_function_names(tree, source):
        return _literal(text)
    closure = Builder(_HANDLERS, source)(tree.body)
    return Compiled(closure=closure, must_settle=needs_settling(tree, source))


def _parse(source: Source) -> ast.Expression | None:
    """The tree of an expression; one that spans lines need not be in brackets."""
    is_sound = source.is_balanced and source.nesting <= MAX_BRACKETS
    if not is_sound or not source.code.strip():  # nothing but a comment is no empty tuple
        return None
    tree = _parse_code(source.code)
    if tree is None:
        tree = _parse_code(f"({source.code}\n)")
        if tree and isinstance(tree.body, ast.NamedExpr | ast.Yield | ast.YieldFrom):
            return None  # brackets must not make an expression of a statement
    return tree


def _parse_code(code: str) -> ast.Expression | None:
    try:
        return ast.parse(code, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _is_plain_word(body: ast.expr, source: Source) -> bool:
    """A single word is text, also when the language knows it: `len`, `order`, `…`."""
    if isinstance(body, ast.Constant):
        return type(body.value) in (complex, bytes, type(...))
    if not isinstance(body, ast.Name) or body.id in CONSTANT_NAMES:
        return False
    return body.id not in (source.subject, CONTEXT, *source.state_keys)


def _is_only_function_names(tree: ast.Expression, source: Source) -> bool:
    """Words such as `map-filter` or `min,max`: functions that nobody calls give no value."""
    has_function = False
    for node in parts_of(tree):
        if isinstance(node, ast.Call | ast.Lambda | ast.GeneratorExp | ast.comprehension):
            return False
        if isinstance(node, ast.Name):
            if node.id not in FUNCTIONS and node.id != CONTEXT:
                return False
            has_function = has_function or node.id in FUNCTIONS
    return has_function


def _unparsable(text: str, reason: str) -> Compiled:
    """Plain text, unless it looks so much like code that an author must have meant code."""
    if any(mark in text for mark in _CODE_MARKS):
        return _refused(reason)
    if "$.(" in text and text.lstrip().startswith(_OPENINGS):
        return _refused(reason)
    return _literal(text)


def _refused(problem: str) -> Compiled:
    return Compiled(is_refused=True, problem=problem)


def _literal(text: str, problem: str | None = None) -> Compiled:
    """Text as it is, with the `$.(key)` in it filled in."""
    if problem is not None and not any(mark in text for mark in (*_CODE_MARKS, "$.(")):
        problem = None  # an ordinary word or sentence
    if len(text_parts(text)) == 1:
        return Compiled(is_literal=True, problem=problem)
    return Compiled(closure=fstrings.text_with_state(text, None), is_literal=True, problem=problem)


def _secret(name: str) -> Closure:
    def resolved(frame: Frame) -> object:
        value: object = frame[0].secret(name)
        return value

    return resolved
