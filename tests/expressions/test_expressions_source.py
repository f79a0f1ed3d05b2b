"""The scanner finds every `$` that is code, and leaves alone what is text."""

from __future__ import annotations

import ast

import pytest

from machina.expressions.compiler import compile_key_text, compile_text
from machina.expressions.source import scan, text_parts


def code_of(text: str) -> str:
    """The rewritten source, with the names for `$` and `$.(key)` made readable."""
    source = scan(text)
    code = source.code
    for name, key in source.state_keys.items():
        code = code.replace(f"{name} ", f"<{key}>")
    return code.replace(f"{source.subject} ", "S")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("$.get('a')", "S.get('a')"),
        ("{'a': $, '$': '$'}", "{'a': S, '$': '$'}"),
        ("$.(a-b)", "<a-b>"),
        ("$.( 'a b' )", "<a b>"),
        ('$.("a")', "<a>"),
        ("$.(a, b)", "S.(a, b)"),
        ("'$.get(1)' + $.get(2)", "'$.get(1)' + S.get(2)"),
        ("'it\\'s $' + $", "'it\\'s $' + S"),
        ('"""$ " $""" + $', '"""$ " $""" + S'),
        ("''+$", "''+S"),
        ("'' '$'+$", "'' '$'+S"),
        ("r'\\'+$+'$'", "r'\\'+$+'S'"),
        ("f'{$.get(\"a\")} $'", "f'{S.get(\"a\")} $'"),
        ("f'{{$}} {$}'", "f'{{$}} {S}'"),
        ("f'{{{$}}}'", "f'{{{S}}}'"),
        ("F'{$}' rf'{$}' fR'{$}' b'{$}' u'{$}'", "F'{S}' rf'{S}' fR'{S}' b'{$}' u'{$}'"),
        ("xf'{$}'", "xf'{$}'"),
        ("f'{$!r:>{$}}'", "f'{S!r:>{S}}'"),
        ("f'{$:$}'", "f'{S:$}'"),
        ("f'{ {1: $}[1] }'", "f'{ {1: S}[1] }'"),
        ("f'{$[1:2]:3}'", "f'{S[1:2]:3}'"),
        ("f'''{$['a'] + \"$\"} it's $'''", "f'''{S['a'] + \"$\"} it's $'''"),
        ("f'{f\"{$}$\"}$'", "f'{f\"{S}$\"}$'"),
        ("f'{$.(a-b)} $.(c)'", "f'{<a-b>} $.(c)'"),
        ("f'\\N{DOLLAR SIGN}{$}'", "f'\\N{DOLLAR SIGN}{S}'"),
        ("1 # $ isn't code\n+ $", "1 \n+ S"),
        ("'#' + $", "'#' + S"),
        ("$ !== '!=='", "S != '!=='"),
        ("$ === 1", "S == 1"),
        ("$ != 1 == 2 <= 3", "S != 1 == 2 <= 3"),
        ("f'{$!==1}'", "f'{S!=1}'"),
        ("'\\d\\n'", "'\\\\d\\n'"),
        ("r'\\d'", "r'\\d'"),
        ("f'\\d{$}'", "f'\\\\d{S}'"),
        ("rf'\\d{$}'", "rf'\\d{S}'"),
        ("fr'\\{$}'", "fr'\\{S}'"),
        ("rf'\\N{$}'", "rf'\\N{S}'"),
    ],
)
def test_dollar_is_rewritten_only_when_it_is_code(text: str, code: str) -> None:
    assert code_of(text) == code


@pytest.mark.parametrize("text", ["'$", "f'{$", "f'{$:", '"""$"', "f'{f\"{", "f'\\", "'\\"])
def test_scanner_ends_when_a_string_does_not(text: str) -> None:
    scan(text)
    with pytest.raises(SyntaxError):
        ast.parse(scan(text).code, mode="eval")


@pytest.mark.parametrize(
    "text", ["$ + _subject", "_subject_subject__ + $", "$ + ｓ_subject", "$ + _ｓubject_", "$"]
)
def test_name_for_the_subject_is_new_when_the_author_wrote_the_usual_one(text: str) -> None:
    source = scan(text)
    names = [node.id for node in ast.walk(ast.parse(source.code)) if isinstance(node, ast.Name)]
    assert names.count(source.subject) == 1


def test_dollar_does_not_grow_into_a_name_when_letters_touch_it() -> None:
    for text in ("$foo", "foo$", "$0", "a$b", "$$"):
        assert compile_text(text).is_literal


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [("", None)]),
        ("a", [("a", None)]),
        ("a $.(b-c) d", [("a ", "b-c"), (" d", None)]),
        ("$.(a)$.('b')", [("", "a"), ("", "b"), ("", None)]),
        ("$.() $.(a)", [("$.() ", "a"), ("", None)]),
        ("$.(a\nb)", [("$.(a\nb)", None)]),
        ("$.('a)", [("$.('a)", None)]),
    ],
)
def test_text_is_split_at_its_state_keys(text: str, parts: list[tuple[str, str | None]]) -> None:
    assert text_parts(text) == parts


HOSTILE = {
    "dollars": "$" * 30_000,
    "open keys": "$.(" * 10_000,
    "wide keys": ("$.(" + " " * 100) * 300,
    "quotes": "'" * 30_000,
    "backslashes": "'" + "\\" * 30_000,
    "fields": "f'" + "{" * 30_000,
    "formats": "f'" + "{a:" * 10_000 + "'",
    "names": "f'" + "\\N{" * 10_000 + "'",
    "token": "$A_CONTEXT_VARIABLE_" + "A_CONTEXT_VARIABLE_" * 1_500 + "!",
    "short token": "$A_CONTEXT_VARIABLE_" + "A_CONTEXT_VARIABLE_" * 9 + "!",
    "brackets": "(" * 30_000,
    "comments": "#\n" * 15_000,
    "sum": "+".join(["1"] * 15_000),
    "signs": "-" * 30_000 + "1",
    "taken name": "_subject" + "_" * 30_000,
    "taken names": "_subject_" * 3_000,
    "calls": "$.get" + "()" * 15_000,
    "items": "$" + "[0]" * 10_000,
    "list": "[" + "1," * 15_000 + "]",
    "loops": "[1 " + "for x in [1] " * 2_000 + "]",
    "nested loops": "[1 for x in " * 2_000 + "[]" + "]" * 2_000,
    "lambdas": "lambda:" * 4_000 + "1",
    "digits": "9" * 30_000,
    "null bytes": "$\0" * 15_000,
    "surrogates": "\ud800" * 30_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_compiling_ends_soon_and_raises_nothing_when_the_text_is_hostile(text: str) -> None:
    compile_text(text)
    compile_key_text(text)
