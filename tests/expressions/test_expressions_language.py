"""The parts of the language: each function, method and form does what Python does."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from machina.errors import ExpressionFailed
from machina.expressions import Scope, compile_expression, evaluate

WHEN = datetime.fromisoformat("2024-05-06T07:08:09")
STATE: dict[str, Any] = {
    "n": 3,
    "who": "Ada",
    "ids": ["b", "a"],
    "docs": [{"id": 2, "name": "y"}, {"id": 1, "name": "x"}],
    "doc": {"id": 7, "tags": ["p"]},
    "when": WHEN,
    "day": WHEN.date(),
    "span": timedelta(days=1, seconds=30),
    "html": "<p>a<b>b</b><!-- c --><script>d</script></p>",
}


def value_of(source: str) -> Any:
    return evaluate(source, Scope(STATE, STATE), where="test")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("len($.get('ids'))", 2), ("str(1.0)", "1.0"), ("str()", ""), ("int('12')", 12),
        ("int('ff', 16)", 255), ("int()", 0), ("float('1.5')", 1.5), ("float()", 0.0),
        ("bool([])", False), ("bool()", False), ("list('ab')", ["a", "b"]), ("list()", []),
        ("tuple([1])", (1,)), ("set([1, 1])", {1}), ("set()", set()),
        ("dict([('a', 1)], b=2)", {"a": 1, "b": 2}), ("dict({'a': 1}, **{'b': 2})",
        {"a": 1, "b": 2}), ("dict()", {}), ("sum([1, 2], 3)", 6), ("sum([[1], [2]], [])", [1, 2]),
        ("any([0, 1])", True), ("all([0, 1])", False), ("all([])", True),
        ("min(2, 1)", 1), ("max([1, 3, 2])", 3), ("max([], default=0)", 0), ("abs(-2)", 2),
        ("abs(-timedelta(1))", timedelta(1)), ("round(2.567, 2)", 2.57), ("round(2.5)", 2),
        ("round(number=2.4)", 2), ("repr('a')", "'a'"), ("list(range(1, 6, 2))", [1, 3, 5]),
        ("range(3)", [0, 1, 2]), ("range(5)[1:3]", [1, 2]), ("enumerate('a', 1)", [(1, "a")]),
        ("list(zip([1, 2], 'ab'))", [(1, "a"), (2, "b")]), ("zip()", []),
        ("list(map(str, [1]))", ["1"]), ("map(lambda a, b: a + b, [1, 2], [3, 4])", [4, 6]),
        ("filter(None, [0, 1])", [1]), ("list(filter(lambda x: x > 1, [1, 2]))", [2]),
        ("list(reversed([1, 2]))", [2, 1]), ("sorted([2, 1])", [1, 2]),
        ("sorted('ba', reverse=True)", ["b", "a"]), ("sorted(['bb', 'a'], key=len)", ["a", "bb"]),
        ("sorted($.get('docs'), key=lambda x: x.get('id'))[0].get('name')", "x"),
        ("sorted([(1, 'b'), (1, 'a')])", [(1, "a"), (1, "b")]), ("sorted([{}])", [{}]),
        ("sorted([(1, 2), (0, 3), (1, 1)], key=lambda p: p[0], reverse=True)",
         [(1, 2), (1, 1), (0, 3)]),
        ("min([3, 1], key=lambda x: -x)", 3), ("next((x for x in [1, 2] if x > 1), 0)", 2),
        ("next((x for x in []), 'none')", "none"), ("next(map(str, [1]))", "1"),
        ("isinstance('a', str)", True), ("isinstance(1, (str, int))", True),
        ("isinstance($.get('when'), datetime)", True), ("isinstance(None, (list, dict))", False),
        ("isinstance(True, int)", True), ("[x for x in [1, 'a'] if isinstance(x, str)]", ["a"]),
        ("json.loads('{\"a\": [1]}')", {"a": [1]}), ("list(map(json.loads, ['1']))", [1]),
        ("bs4($.get('html'), 'html.parser').get_text()", "ab"),
        ("bs4($.get('html')).get_text(separator='|', strip=True)", "a|b"),
        ("bs4('plain').get_text()", "plain"), ("bs4('<?xml version=\"1\"?><a>x</a>').get_text()",
        "x"), ("bs4('').get_text()", ""),
    ],
)  # fmt: skip
def test_function_gives_what_python_gives(source: str, value: Any) -> None:
    assert value_of(source) == value
    assert type(value_of(source)) is type(value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("' a '.strip()", "a"), ("'xax'.strip('x')", "a"), ("'xa'.lstrip('x')", "a"),
        ("'ax'.rstrip('x')", "a"), ("'aB'.lower()", "ab"), ("'aB'.upper()", "AB"),
        ("'a b'.title()", "A B"), ("'ab'.capitalize()", "Ab"), ("'1'.isdigit()", True),
        ("'a'.isalpha()", True), ("'a1'.isalnum()", True), ("' '.isspace()", True),
        ("'abc'.startswith('a')", True), ("'abc'.startswith(('x', 'a'))", True),
        ("'abc'.endswith('c')", True), ("'abab'.replace('a', 'x')", "xbxb"),
        ("'abab'.replace('a', 'x', 1)", "xbab"), ("'ab'.replace('', '-')", "-a-b-"),
        ("'a,b'.split(',')", ["a", "b"]), ("'a b  c'.split()", ["a", "b", "c"]),
        ("'a,b,c'.split(',', maxsplit=1)", ["a", "b,c"]), ("'a\\nb'.splitlines()", ["a", "b"]),
        ("'a\\nb'.splitlines(True)", ["a\n", "b"]), ("'a=b=c'.partition('=')", ("a", "=", "b=c")),
        ("'-'.join(['a', 'b'])", "a-b"), ("', '.join(str(i) for i in [1, 2])", "1, 2"),
        ("'abc'.find('c')", 2), ("'abc'.index('c')", 2), ("'aab'.count('a')", 2),
        ("'prefix'.removeprefix('pre')", "fix"), ("'a.py'.removesuffix('.py')", "a"),
        ("$.get('doc').get('id')", 7), ("$.get('doc').get('x', 1)", 1),
        ("$.get('doc').get((1, 2), 1)", 1), ("$.get('doc').keys()", ["id", "tags"]),
        ("list($.get('doc').values())", [7, ["p"]]), ("$.get('doc').items()",
        [("id", 7), ("tags", ["p"])]), ("'id' in $.get('doc').keys()", True),
        ("[1, 2, 1].count(1)", 2), ("[1, 2].index(2)", 1), ("(1, 2).index(2)", 1),
        ("$.get('when').isoformat()", "2024-05-06T07:08:09"), ("$.get('when').date()",
        WHEN.date()), ("$.get('when').strftime('%d.%m.%Y %-H%%')", "06.05.2024 7%"),
        ("$.get('when').replace(hour=1, minute=2)", WHEN.replace(hour=1, minute=2)),
        ("$.get('when').replace(tzinfo=None)", WHEN), ("$.get('when').timestamp()",
        WHEN.timestamp()), ("$.get('when').weekday()", 0), ("$.get('when').year", 2024),
        ("$.get('when').tzinfo", None), ("$.get('day').isoformat()", "2024-05-06"),
        ("$.get('day').day", 6), ("$.get('day').strftime('%Y')", "2024"),
        ("$.get('span').days", 1), ("$.get('span').seconds", 30),
        ("$.get('span').total_seconds()", 86430.0),
        ("$.get('when').__sub__(timedelta(days=1))", WHEN - timedelta(days=1)),
        ("$.get('when') - $.get('when')", timedelta(0)),
        ("$.get('day') + timedelta(1)", WHEN.date() + timedelta(1)),
        ("timedelta(hours=3) / timedelta(hours=2)", 1.5), ("2 * timedelta(1) // 2", timedelta(1)),
        ("datetime(2024, 5, 6, 7, 8, 9)", WHEN),
        ("datetime.fromisoformat('2024-05-06T07:08:09')", WHEN),
        ("datetime.strptime('06.05.2024', '%d.%m.%Y').day", 6),
        ("datetime.utcfromtimestamp(0)", datetime.fromisoformat("1970-01-01T00:00:00")),
        ("datetime.fromtimestamp(0) == datetime.utcfromtimestamp(0) + (datetime.fromtimestamp(0)"
         " - datetime.utcfromtimestamp(0))", True),
        ("datetime.now() - datetime.today() < timedelta(minutes=1)", True),
        ("datetime.utcnow() > datetime(2024, 1, 1)", True),
        ("datetime.utcnow().tzinfo", None),
        ("__import__('datetime').datetime.utcnow() > datetime(2024, 1, 1)", True),
        ("__import__('datetime').timedelta(days=1)", timedelta(1)),
    ],
)  # fmt: skip
def test_method_gives_what_python_gives(source: str, value: Any) -> None:
    assert value_of(source) == value
    assert type(value_of(source)) is type(value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1 + 2 * 3 - 4 / 2 // 1 % 5", 5.0), ("-(+1)", -1), ("not 1", False),
        ("1 < 2 <= 2 != 3", True), ("3 > 2 > 2", False), ("1 and 0 or 'x'", "x"),
        ("1 and 2 and 3", 3), ("0 or '' or None", None), ("1 if [] else 2", 2),
        ("'a' in 'abc'", True), ("2 not in [1]", True), ("{'a': 1} in [{'a': 1}]", True),
        ("'a' in {'a': 1}", True), ("2 in range(3)", True), ("1.0 in range(3)", True),
        ("2 in (x for x in [1, 2])", True), ("1 in {1}", True), ("{1, 2} - {2}", {1}),
        ("{1} < {1, 2}", True), ("[1, [2]] == [1, [2]]", True), ("[1] < [2]", True),
        ("'a' * 3", "aaa"), ("2 * [1]", [1, 1]), ("[1] * -1", []), ("(1,) + (2,)", (1, 2)),
        ("[1, 2, 3][-1]", 3), ("[1, 2, 3][::2]", [1, 3]), ("'abc'[1:]", "bc"),
        ("{'a': 1}['a']", 1), ("{(1, 2): 3}[(1, 2)]", 3), ("[*'ab', 1]", ["a", "b", 1]),
        ("(*[1], 2)", (1, 2)), ("{*[1], 2}", {1, 2}), ("{'a': 1, **{'a': 2}}", {"a": 2}),
        ("{1: 2, 'a': 3}", {1: 2, "a": 3}), ("{**{}, **{}}", {}),
        ("[x * y for x in [1, 2] for y in [3, 4] if x != y]", [3, 4, 6, 8]),
        ("[[y for y in x] for x in [[1], [2]]]", [[1], [2]]),
        ("[a + b for a, b in [(1, 2)]]", [3]), ("[a for (a, [b, c]) in [(1, [2, 3])]]", [1]),
        ("{k: v for k, v in {'a': 1}.items()}", {"a": 1}), ("{x % 2 for x in [1, 2, 3]}", {0, 1}),
        ("[x for x in [1, 2, 3] if x > 1 if x < 3]", [2]), ("[x for x in zip([1], [2])]", [(1, 2)]),
        ("list(x for x in [1, 2])", [1, 2]), ("(x for x in [1])", [1]),
        ("[[x, y] for x in [1] for y in (z for z in [x])]", [[1, 1]]),
        ("[len for len in [1]]", [1]), ("[context for context in [1]]", [1]),
        ("[$.get('n') + i for i in [1]]", [4]), ("[context.get('n') for i in [1]]", [3]),
        ("(lambda x, y=2: x + y)(1)", 3), ("(lambda x, y=2: x + y)(y=1, x=1)", 2),
        ("(lambda: $.get('n'))()", 3), ("2 if 1 else (lambda: 1)", 2),
        ("(lambda f: f(f, 5))(lambda f, n: 1 if n == 0 else n * f(f, n - 1))", 120),
        ("[f() for f in [lambda: i for i in range(3)]]", [2, 2, 2]),
        ("[f(1) for f in [lambda x: x + n for n in [10, 20]]]", [21, 21]),
        ("(lambda a: (lambda b: (lambda c: a + b + c)(3))(2))(1)", 6),
        ("len(*[[1, 2]])", 2), ("max(*[1, 2], **{'key': lambda x: -x})", 1),
        ("f\"{$.get('who')} is {$.get('n')}\"", "Ada is 3"), ("f''", ""),
        ("f\"{'a'!r} {'é'!a} {1!s}\"", "'a' '\\xe9' 1"), ("f'{1234567:,}'", "1,234,567"),
        ("f'{1.5:.2f}|{5:03d}|{\"a\":>3}|{True}|{None}'", "1.50|005|  a|True|None"),
        ("f'{1:>{2 + 1}}'", "  1"), ("f\"{$.get('when'):%d.%m.}\"", "06.05."),
        ("f'{$.get(\"n\")=}'", "$.get(\"n\")=3"), ("f'{[1, {\"a\": None}]}'", "[1, {'a': None}]"),
        ("'a' 'b' f'{1}'", "ab1"), ("'\\d\\x41'", "\\dA"), ("f'{{}} {{{1}}}'", "{} {1}"),
        ("$.get(*['n'])", 3), ("$.get('x', *[1])", 1), ("$.get(1, 2)", 2),
        ("$.context.get('n')", 3), ("context.get('x', 1)", 1), ("context['n']", 3),
        ("$['n']", 3), ("len($)", 9), ("[k for k in $ if k == 'n']", ["n"]),
        ("{**$}.get('n')", 3), ("true and not false", True), ("[null]", [None]),
    ],
)  # fmt: skip
def test_form_gives_what_python_gives(source: str, value: Any) -> None:
    assert value_of(source) == value
    assert type(value_of(source)) is type(value)


def test_default_is_evaluated_when_it_is_not_needed() -> None:
    with pytest.raises(ExpressionFailed, match="ZeroDivisionError"):
        value_of("$.get('n', 1 / 0)")


def test_branch_is_not_evaluated_when_it_is_not_taken() -> None:
    assert value_of("1 or 1 / 0") == 1
    assert value_of("0 and 1 / 0") == 0
    assert value_of("1 if true else 1 / 0") == 1
    assert value_of("next((x for x in [1, 0] if 1 / x), 0)") == 1


def test_iterator_is_used_up_when_it_is_read_twice() -> None:
    assert value_of("(lambda g: [list(g), list(g)])(x for x in [1])") == [[1], []]
    assert value_of("(lambda z: [next(z), next(z), list(z)])(zip([1, 2, 3]))") == [
        (1,),
        (2,),
        [(3,)],
    ]


def test_iterators_and_views_become_lists_when_they_are_deep_in_the_result() -> None:
    assert value_of("{'a': [zip([1], [2]), {'b': (x for x in [range(2)])}]}") == {
        "a": [[(1, 2)], {"b": [[0, 1]]}]
    }
    assert value_of("(map(str, [1]), 1)") == (["1"], 1)


def test_data_of_the_state_is_handed_out_as_it_is() -> None:
    assert value_of("$.get('doc')") is STATE["doc"]
    assert value_of("[d for d in $.get('docs')]")[0] is STATE["docs"][0]
    assert value_of("[$.get('doc'), zip()]")[0] is STATE["doc"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("lambda: 1", "TypeError"), ("[lambda: 1]", "TypeError"), ("{'a': $.get('x', len)}",
        "TypeError"), ("bs4('<p>')", "TypeError"), ("__import__('datetime')", "TypeError"),
        ("{zip(): 1}", "TypeError"), ("json.loads('{')", "JSONDecodeError"),
        ("$.get('who').nothing", "AttributeError"), ("$.get('x').get('y')", "AttributeError"),
        ("$.get('ids')[9]", "IndexError"), ("$.get('doc')['x']", "KeyError"),
        ("next(x for x in [])", "StopIteration"), ("[a for a, b in [(1,)]]", "ValueError"),
        ("[a for a, b in [(1, 2, 3)]]", "ValueError"), ("[a for a, b in [1]]", "TypeError"),
        ("(lambda a: a)(**{1: 2})", "TypeError"), ("dict(**{'a': 1}, a=2)", "TypeError"),
        ("(lambda a: a)(**[1])", "TypeError"), ("json.loads.x()", "AttributeError"),
        ("__import__('datetime').datetime.year", "AttributeError"), ("float([])", "TypeError"),
        ("abs('a')", "TypeError"), ("map(str)", "TypeError"), ("json.loads(1)", "TypeError"),
        ("bs4('a').get_text(1)", "TypeError"), ("'a'.replace(1, 2)", "TypeError"),
        ("'a'.split(',', 'x')", "TypeError"), ("timedelta(1) // 'a'", "TypeError"),
        ("'a' / 2", "TypeError"), ("datetime.get('a')", "AttributeError"),
        ("$.get('span').get('a')", "AttributeError"), ("[1].get('a', 2)", "AttributeError"),
        ("timedelta(days=999999999) * 2", "OverflowError"), ("1 % 0", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_error_keeps_its_kind(source: str, kind: str) -> None:
    with pytest.raises(ExpressionFailed) as caught:
        compile_expression(source).evaluate(Scope(STATE, STATE), where="test")
    assert caught.value.details["error"] == kind
    assert type(caught.value.__cause__).__name__ == kind
