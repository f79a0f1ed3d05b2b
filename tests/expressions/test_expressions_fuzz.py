"""Random expressions mean the same here as in Python: the same value, or the same kind of error."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from machina.errors import BudgetExceeded, ExpressionFailed
from machina.expressions import Limits, Scope, compile_expression

STATE: dict[str, Any] = {
    "n": 3,
    "zero": 0,
    "price": 2.5,
    "who": "Ada",
    "empty": None,
    "yes": True,
    "ids": ["b", "a", "c"],
    "numbers": [3, 1, 2],
    "mixed": [1, "a", None, 2.5, [1], {"k": 1}],
    "docs": [{"id": 1, "name": "x", "tags": ["p", "q"]}, {"id": 2, "name": None, "tags": []}],
    "doc": {"id": 7, "value": {"title": "T", "parts": [1, 2]}},
    "when": datetime.fromisoformat("2024-05-06T07:08:09"),
    "span": timedelta(days=1, hours=2),
}
NAMES = st.sampled_from([*STATE, "missing"])
NAMES_IN_SCOPE = ("x", "y", "k")
SMALL = Limits(steps=200_000, size=2**20)
EXAMPLES = int(os.environ.get("MACHINA_FUZZ_EXAMPLES", "250"))


fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="MACHINA_FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class PythonSubject:
    """What `$` and `context` are when plain Python evaluates the expression."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state

    def get(self, key: Any, default: Any = None) -> Any:
        return self._state.get(key, default)


def one_of_texts(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


literals = st.one_of(
    st.integers(-5, 30).map(str),
    one_of_texts("0.5", "1.0", "2.5e3", "''", "'a'", "'Ada'", "'x,y'", "' b '", "'12'", "'é'"),
    one_of_texts("None", "True", "False", "[]", "{}", "()", "[1, 2, 3]", "{'a': 1}", "(1, 'a')"),
    one_of_texts("timedelta(hours=3)", "datetime(2024, 1, 2)", "'2024-05-06T07:08:09'"),
)
lookups = st.one_of(
    NAMES.map(lambda name: f"$.get('{name}')"),
    st.tuples(NAMES, literals).map(lambda pair: f"$.get('{pair[0]}', {pair[1]})"),
    NAMES.map(lambda name: f"context.get('{name}')"),
)
variables = st.sampled_from(NAMES_IN_SCOPE)
BINARY = one_of_texts("+", "-", "*", "/", "//")
COMPARE = one_of_texts("==", "!=", "<", "<=", ">", ">=", "in", "not in")
IDENTITY = one_of_texts("is None", "is not None", "is True", "is not ''")
CALLS = one_of_texts(
    "len", "str", "int", "float", "bool", "list", "tuple", "set", "dict", "sum", "any", "all",
    "sorted", "min", "max", "abs", "round", "repr",
)  # fmt: skip
LAZY = one_of_texts("enumerate", "reversed", "zip", "range")
METHODS = one_of_texts(
    "strip()", "upper()", "lower()", "title()", "capitalize()", "split()", "split(',')", "keys()",
    "items()", "values()", "isdigit()", "startswith('a')", "endswith('a')", "replace('a', 'bb')",
    "get('id')", "get('id', 0)", "isoformat()", "total_seconds()", "date()", "count('a')",
    "index('a')", "find('a')", "splitlines()", "lstrip('a')", "rstrip()", "timestamp()",
    "strftime('%Y-%m-%d')", "weekday()", "partition(',')", "removeprefix('A')",
)  # fmt: skip
ATTRIBUTES = one_of_texts("days", "seconds", "year", "month", "hour", "nothing")
SPECS = one_of_texts("", "", "!r", "!s", ":,", ":>8", ":.2f", ":05d", ":^10", ":x", ":%Y", ":e")


def compounds(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def joined(template: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(*parts).map(lambda values: template.format(*values))

    items = st.one_of(inner, lookups)
    return st.one_of(
        joined("({} {} {})", inner, BINARY, inner),
        joined("({} % {})", st.integers(-9, 9).map(str), inner),
        joined("({} {} {})", inner, COMPARE, inner),
        joined("({} {})", inner, IDENTITY),
        joined("({} < {} <= {})", inner, inner, inner),
        joined("({} {} {})", inner, one_of_texts("and", "or"), inner),
        joined("({} if {} else {})", inner, inner, inner),
        joined("({} {})", one_of_texts("not", "-", "+"), inner),
        joined("{}({})", CALLS, inner),
        joined("{}({}, {})", one_of_texts("min", "max", "round", "sum"), inner, inner),
        joined("int({}, 16)", inner),
        joined("isinstance({}, {})", inner, one_of_texts("str", "(int, list)", "dict", "datetime")),
        joined("{}.{}", inner, METHODS),
        joined("({}).{}", inner, ATTRIBUTES),
        joined("({})[{}]", inner, inner),
        joined("({})[{}:{}]", inner, one_of_texts("", "0", "1", "-1"), one_of_texts("", "2", "-1")),
        joined("({})[::{}]", inner, one_of_texts("1", "-1", "2", "0", "'a'")),
        joined("[{}, *{}]", inner, inner),
        joined("({}, {})", inner, inner),
        joined("{{'a': {}, **{}}}", inner, inner),
        joined("{{{}: {}}}", inner, inner),
        joined("{{{}, {}}}", inner, inner),
        joined("', '.join({})", inner),
        joined("list({}({}))", LAZY, inner),
        joined("list(zip({}, {}))", inner, inner),
        joined("list(map({}, {}))", one_of_texts("str", "int", "len", "lambda x: x"), inner),
        joined("list(filter({}, {}))", one_of_texts("None", "bool", "lambda x: x"), inner),
        joined("[{} for {} in {}]", inner, variables, items),
        joined("[{} for {} in {} if {}]", inner, variables, items, inner),
        joined("[{} for {} in {} for {} in {}]", inner, variables, items, variables, inner),
        joined("[{} for x, y in {}]", inner, items),
        joined("{{{} for {} in {}}}", inner, variables, items),
        joined("{{{}: {} for {} in {}}}", inner, inner, variables, items),
        joined("{}({} for {} in {})", one_of_texts("any", "all", "sum", "list", "tuple", "set"),
               inner, variables, items),
        joined("next(({} for {} in {} if {}), {})", inner, variables, items, inner, inner),
        joined("sorted({}, key=lambda {}: {})", items, variables, inner),
        joined("max({}, key=lambda {}: {}, default={})", items, variables, inner, inner),
        joined("(lambda {}: {})({})", variables, inner, inner),
        joined("(lambda x, y={}: {})({})", inner, inner, inner),
        joined("[f() for f in [lambda: {} for {} in {}]]", inner, variables, items),
        joined("(lambda {}: {})(*{})", variables, inner, inner),
        joined("dict(a={}, **{})", inner, inner),
        joined('f"""<{{ {}{}}}>"""', inner, SPECS),
    )  # fmt: skip


def lazy_compounds(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions whose values, or parts of them, are iterators, views or functions."""
    names = one_of_texts("len", "str", "zip", "datetime", "json", "json.loads", "lambda: 0", "bs4")
    return st.one_of(
        compounds(inner),
        st.tuples(LAZY, inner).map(lambda pair: f"{pair[0]}({pair[1]})"),
        st.tuples(names, inner).map(lambda pair: f"map({pair[0]}, {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} for x in {pair[1]})"),
        st.tuples(inner, names).map(lambda pair: f"[{pair[0]}, {pair[1]}]"),
        st.tuples(inner, names).map(lambda pair: f"({pair[0]} or {pair[1]})"),
        st.tuples(inner, names).map(lambda pair: f"next({pair[0]}, {pair[1]})"),
        st.tuples(inner, names).map(lambda pair: f"max({pair[0]}, key={pair[1]})"),
        st.tuples(inner, names).map(lambda pair: f"max({pair[0]}, {pair[0]}, key={pair[1]})"),
        inner.map(lambda text: f"({text}).items()"),
        inner.map(lambda text: f"{{'k': ({text}).values()}}"),
        st.just("bs4('<p>x')"),
    )


expressions = st.recursive(st.one_of(literals, lookups, variables), compounds, max_leaves=12)


lazy_expressions = st.recursive(
    st.one_of(literals, lookups, variables), lazy_compounds, max_leaves=8
)
fragments = st.lists(
    st.sampled_from(
        [
            *"$.()[]{}'\"\\fr:,=!#%*+-<>@^|~ \n0aé\u200b",
            *("$.get('who')", "$.(who)", "$.('n')", "f'", "'''", "{{", "}}", "\\N{", "lambda x:"),
            *(" for x in ", " if ", " else ", " is not ", "!==", "===", "context", "__class__"),
            *("len(", "[1]", "{'a': 1}", "$A_CONTEXT_VARIABLE_B", "_subject", ":=", "await "),
        ]
    ),
    max_size=25,
).map("".join)


def bind_variables(source: str) -> str:
    """Gives every variable a value, so that none is free."""
    names = ", ".join(NAMES_IN_SCOPE)
    return f"(lambda {names}: {source})(2, 'ab', [1, 'b'])"


def plain(value: Any) -> Any:
    """What Python's value looks like once iterators and views have become lists."""
    if isinstance(value, range | type({}.keys()) | type({}.values()) | type({}.items())):
        value = list(value)
    if isinstance(value, list | tuple):
        return type(value)(plain(part) for part in value)
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


def in_python(source: str) -> str:
    subject = PythonSubject(STATE)
    names = {"S": subject, "context": subject, "datetime": datetime, "timedelta": timedelta}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # `(0)[1]`, "perhaps you missed a comma"
            # The very thing that the product must never do; here it is the reference.
            value = eval(source.replace("$", "S"), names)  # noqa: S307
    except Exception as error:  # noqa: BLE001  # whatever Python raises is the expected answer
        return type(error).__name__
    return repr(plain(value))


def in_machina(source: str) -> str:
    try:
        return repr(compile_expression(source).evaluate(Scope(STATE, STATE)))
    except ExpressionFailed as error:
        failure = error
    assume(not isinstance(failure, BudgetExceeded))
    assume("used before it has a value" not in failure.message)  # Python finds out later
    return type(failure.__cause__).__name__


@fuzzed
@given(expressions.map(bind_variables))
def test_value_or_error_is_the_same_as_in_python(source: str) -> None:
    expected = in_python(source)
    assume(expected != "SyntaxError" and " object at 0x" not in expected)
    assert in_machina(source) == expected


@fuzzed
@given(lazy_expressions.map(bind_variables))
def test_result_is_plain_data_or_an_error(source: str) -> None:
    try:
        value = compile_expression(source).evaluate(Scope(STATE, STATE), limits=SMALL)
    except ExpressionFailed:
        return
    assert is_plain(value), value


@fuzzed
@given(fragments)
def test_any_text_gives_plain_data_or_an_error(text: str) -> None:
    expression = compile_expression(text)
    try:
        value = expression.evaluate(Scope(STATE, STATE), limits=SMALL)
    except ExpressionFailed:
        return
    assert is_plain(value), value
    if expression.is_literal and "$.(" not in text:
        assert value == text


@fuzzed
@given(st.text(max_size=40), st.sampled_from(["{}", "[{}][0]", "f{}", "({})", "{} or $"]))
def test_text_in_quotes_is_that_text(text: str, form: str) -> None:
    literal = repr(text)
    if form == "f{}":
        assume("\\" not in literal)
        literal = literal.replace("{", "{{").replace("}", "}}")
    assume("$.(" not in text and (text or form != "{} or $"))
    value = compile_expression(form.format(literal)).evaluate(Scope(STATE, STATE))
    assert value == text


@fuzzed
@given(st.text(max_size=60))
def test_data_comes_out_as_it_went_in(text: str) -> None:
    scope = Scope({"text": text}, {"text": text})
    for source in ("$.get('text')", "$.(text)", "f\"{$.get('text')}\"", "'$.(text)'"):
        assert compile_expression(source).evaluate(scope) == text


def is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set):
        return all(is_plain(part) for part in value)
    if isinstance(value, dict):
        return all(is_plain(part) for pair in value.items() for part in pair)
    return value is None or type(value) in (str, int, float, bool, datetime, date, timedelta)
