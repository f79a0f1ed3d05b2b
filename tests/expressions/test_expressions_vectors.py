"""What a text in a definition means, line by line as the format's reference says it."""

from __future__ import annotations

from typing import Any

import pytest

from machina.errors import ExpressionFailed
from machina.expressions import Scope, compile_expression, evaluate, is_true

STATE: dict[str, Any] = {
    "n": 3,
    "who": "Ada",
    "ids": ["a", "b"],
    "wanted-ids": ["b"],
    "empty": None,
    "step": {"result": 5, "none": None},
    "step.literal": 6,
}
RESULT: dict[str, Any] = {"items": [{"id": "x"}], "total": 1}
OF_STATE = Scope(STATE, STATE)
OF_RESULT = Scope(RESULT, STATE)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("$.get('n')", 3),
        ("7", 7),
        (7, 7),
        ("'Ada'", "Ada"),
        ("Ada", "Ada"),
        ("order-card", "order-card"),
        ("len", "len"),
        ("[*$.get('ids', []), *($.get('empty') or [])]", ["a", "b"]),
        ("{**{'a': 1}, 'b': $.get('n') + 1}", {"a": 1, "b": 4}),
        ("f\"{$.get('n'):,} for $.(who)\"", "3 for Ada"),
        ("{'$in': $.(wanted-ids)}", {"$in": ["b"]}),
        ("$.get('empty', []) is not None and len($.get('ids')) > 1", False),
    ],
)
def test_value_is_as_specified_when_the_subject_is_the_state(source: Any, value: Any) -> None:
    assert evaluate(source, OF_STATE) == value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("$", RESULT),
        ("[i.get('id') for i in $.get('items', [])]", ["x"]),
        ("context.get('who')", "Ada"),
        ("$.context('who', '')", "Ada"),
        ("$.context.get('who')", "Ada"),
        ("$.(who)", "Ada"),
        ("$.('who')", "Ada"),
        ("$.get('who', 'nobody')", "nobody"),
        ("$.get('n') is not None and 'executed' or 'skipped'", "skipped"),
    ],
)
def test_value_is_as_specified_when_the_subject_is_a_result(source: str, value: Any) -> None:
    assert evaluate(source, OF_RESULT) == value


def test_condition_raises_when_a_key_exists_with_null() -> None:
    with pytest.raises(ExpressionFailed, match="TypeError"):
        is_true("len($.get('empty', [])) > 0", OF_STATE)


@pytest.mark.parametrize(
    "text",
    [
        "^acme:item:", "acme:order", "https://api.example.test/x", "order-card", "flash-2-voice",
        "en-us", "city,region,shop(hours)", "object", "map-filter", "min,max", "context-json",
        "...", "3j", "b'x'", "", " ", "#", "# a heading", "#5", "yield", "yield x", "await x",
        "x := 5", "(x := 5)", "1), (2", "it's", "50% off", "Costs $5", "$", "a" * 40_000,
        "$lower", "Bearer $TEMP_CONTEXT_VARIABLE_X", "Kein Ende (", "2024-01-01", "10:30",
    ],
)  # fmt: skip
def test_text_is_literal_when_it_is_no_expression(text: str) -> None:
    if text == "$":
        assert evaluate(text, OF_STATE) is STATE
        return
    expression = compile_expression(text)
    assert expression.is_literal
    assert not expression.is_suspect
    assert expression.evaluate(OF_STATE) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None), ("true", True), ("false", False), ("None", None), ("True", True),
        ("250", 250), ("'thread'", "thread"), ("-1", -1), ("1.5", 1.5), (" 7 \n", 7),
        ("context", STATE), ("[1, 2]\n+ [3]", [1, 2, 3]), ("1\nif true\nelse 2", 1),
        ("{'a': 1}  # isn't final", {"a": 1}), ("{'a': 1,  # it's $.get('x')\n 'b': 2}",
        {"a": 1, "b": 2}), ("len('abc') # don't", 3),
        ("$.get('id') !== ''", True), ("$.get('n') === 3", True), ("'===' == '==' + '='", True),
        ("'a !== b'", "a !== b"), ("f\"{$.get('n') === 3}\"", "True"),
        ("$.get('step.result')", 5), ("$.get('step.literal')", 6), ("$.get('step.none', 1)", None),
        ("$.get('step.no', 1)", 1), ("$.get('who.a', 1)", 1), ("context.get('step.result')", 5),
        ("$.(step.result)", 5), ("'x $.(step.result)'", "x 5"),
        ("'<$.(empty)>'", "<>"), ("'<$.(nothing)>'", "<>"), ("f'<$.(empty)>'", "<>"),
        ("'$.(ids)'", "['a', 'b']"), ("\"$.('who')!\"", "Ada!"), ("{'$.(who)': 1}", {"Ada": 1}),
        ("'$.() $.( $.(a(b)) $who'", "$.() $.( $.(a(b)) $who"),
        ("f\"{$.(wanted-ids)}\"", "['b']"), ("f\"{$.('who')}\"", "Ada"),
        ("$.get('empty') is not ''", True),
    ],
)  # fmt: skip
def test_text_is_an_expression_when_it_can_be_read_as_one(text: str, value: Any) -> None:
    assert not compile_expression(text).is_literal
    assert evaluate(text, OF_STATE) == value


@pytest.mark.parametrize(
    "source",
    [
        "{'a': '$.get('b')'}",
        "$.get('a') && $.get('b')",
        "$.get('a'",
        "$.get('a'))",
        "!$.get('a')",
        "{'$in': $.(ids}",
        "[$.(ids), , 1]",
        "(" * 100 + "$.get('a')" + ")" * 100,
        "$.get('a') + '" + "x" * 40_000 + "'",
    ],
)
def test_broken_code_fails_and_says_so_when_it_cannot_be_parsed(source: str) -> None:
    expression = compile_expression(source)
    assert expression.is_suspect
    assert expression.problem
    with pytest.raises(ExpressionFailed, match=r"cannot be parsed|longer than"):
        expression.evaluate(OF_STATE)


def test_unknown_name_makes_text_of_code_and_the_problem_says_which() -> None:
    expression = compile_expression("upper($.get('who'))")
    assert expression.is_literal
    assert expression.is_suspect
    assert "'upper'" in str(expression.problem)
    assert expression.evaluate(OF_STATE) == "upper($.get('who'))"


def test_condition_raises_when_it_is_code_that_was_taken_for_text() -> None:
    with pytest.raises(ExpressionFailed, match="upper"):
        is_true("upper($.get('who'))", OF_STATE)


def test_state_is_inserted_into_text_that_is_no_expression() -> None:
    assert evaluate("Hello $.(who), you have $.(n)!", OF_STATE) == "Hello Ada, you have 3!"
    assert evaluate("https://x.test/$.(who)?q=$.(empty)", OF_STATE) == "https://x.test/Ada?q="


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("'executed'", True), ("executed", True), ("", False), ("0", False), ("null", False),
        ("[]", False), ("$.get('n') > 2", True), (True, True), (False, False), (None, False),
        (["false"], True), ([], False), (0, False),
    ],
)  # fmt: skip
def test_condition_is_true_or_false_as_in_python(condition: Any, holds: bool) -> None:
    assert is_true(condition, OF_STATE) is holds


def test_secret_token_is_resolved_only_when_it_is_the_whole_text() -> None:
    asked: list[str] = []

    def secrets(name: str) -> str | None:
        asked.append(name)
        return "s3cret" if name == "TEMP_CONTEXT_VARIABLE_ACME" else None

    scope = Scope(STATE, STATE, secrets=secrets)
    assert evaluate("$TEMP_CONTEXT_VARIABLE_ACME", scope) == "s3cret"
    assert evaluate(" $TEMP_CONTEXT_VARIABLE_ACME\n", scope) == "s3cret"
    assert evaluate("$ACME_2_CONTEXT_VARIABLE_X_1", scope) is None
    text = "Bearer $TEMP_CONTEXT_VARIABLE_ACME"
    assert evaluate(text, scope) == text
    assert evaluate("'$TEMP_CONTEXT_VARIABLE_ACME'", scope) == "$TEMP_CONTEXT_VARIABLE_ACME"
    assert asked == ["TEMP_CONTEXT_VARIABLE_ACME"] * 2 + ["ACME_2_CONTEXT_VARIABLE_X_1"]
    assert evaluate("$TEMP_CONTEXT_VARIABLE_ACME", OF_STATE) is None


def test_containers_are_evaluated_leaf_by_leaf_and_other_values_stay() -> None:
    moment = object()
    value = {"a": ["$.get('n')", 7, {"b": "'x'"}], "c": 1.5, "d": None, "e": moment, 5: "6"}
    assert evaluate(value, OF_STATE) == {
        "a": [3, 7, {"b": "x"}],
        "c": 1.5,
        "d": None,
        "e": moment,
        5: 6,
    }


@pytest.mark.parametrize(
    ("key", "evaluated"),
    [
        ("{$.get('who')}-draft", "Ada-draft"),
        ("$.get('who')", "Ada"),
        ("f\"{$.get('who')}!\"", "Ada!"),
        ("draft-$.(who)", "draft-Ada"),
        ("it's {$.get('n')} \"", "it's 3 \""),
        ("$.get('n')", "3"),
        ("$in", "$in"),
        ("$or", "$or"),
        ("value.sport:competition.@id", "value.sport:competition.@id"),
        ("{braces}", "{braces}"),
        ("len('a')", "len('a')"),
    ],
)
def test_key_is_evaluated_only_when_it_holds_code(key: str, evaluated: str) -> None:
    assert evaluate({key: 1}, OF_STATE) == {evaluated: 1}


def test_key_fails_when_its_code_cannot_be_parsed() -> None:
    with pytest.raises(ExpressionFailed):
        evaluate({"{$.get('who'}": 1}, OF_STATE)
    with pytest.raises(ExpressionFailed):
        evaluate({"\"\"\" {$.get('who')} '": 1}, OF_STATE)
