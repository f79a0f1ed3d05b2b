"""What `$` and `context` find: payloads, results, fallbacks, connector results and free text."""

from __future__ import annotations

import json
from collections import ChainMap
from types import MappingProxyType
from typing import Any

import pytest

from machina.errors import ExpressionFailed
from machina.expressions import ConnectorResult, FreeText, Scope, evaluate


@pytest.mark.parametrize("subject", [None, "text", 5, ["a"], True])
def test_lookup_gives_the_default_when_the_subject_is_no_mapping(subject: Any) -> None:
    scope = Scope(subject, {"k": 1})
    assert evaluate("$.get('k')", scope) is None
    assert evaluate("$.get('k', 'd')", scope) == "d"
    assert evaluate("$", scope) == subject
    assert evaluate("$.(k)", scope) == 1


def test_fallbacks_are_asked_in_order_when_the_subject_lacks_a_key() -> None:
    scope = Scope({"a": None}, {}, fallbacks=({"b": 1}, {"a": 2, "b": 3, "c": {"d": 4}}))
    assert evaluate("[$.get('a'), $.get('b'), $.get('c.d'), $.get('x', 0)]", scope) == [
        None,
        1,
        4,
        0,
    ]
    assert evaluate("$.get('b')", Scope(None, {}, fallbacks=({"b": 1},))) == 1


@pytest.mark.parametrize("make", [dict, MappingProxyType, ChainMap])
def test_any_mapping_will_do_when_it_is_subject_or_state(make: Any) -> None:
    scope = Scope(make({"a": {"b": 1}}), make({"s": 2}))
    assert evaluate("$.get('a.b')", scope) == 1
    assert evaluate("$['a']", scope) == {"b": 1}
    assert evaluate("context.get('s')", scope) == 2
    for whole in ("$", "context", "$.context"):
        assert type(evaluate(whole, scope)) is dict
    assert evaluate("{**$, **context}", scope) == {"a": {"b": 1}, "s": 2}


def test_subclasses_of_known_types_have_no_methods() -> None:
    class Sly(str):
        def upper(self) -> str:
            raise AssertionError("called")

    class SlyDict(dict[str, Any]):
        pass

    data = {"text": Sly("a"), "dict": SlyDict(a=1)}
    for source in ("$.get('text').upper()", "$.get('text') + 'a'", "$.get('dict').keys()"):
        with pytest.raises(ExpressionFailed):
            evaluate(source, Scope(data, data))


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("$.get('path')", "a.png"), ("$.get('status')", True), ("$.get('message')", "fine"),
        ("$.get('extra')", 5), ("$.get('data')", {"path": "a.png", "n": {"m": 1}}),
        ("$.get('data', {}).get('path') or $.get('path')", "a.png"), ("$.get('n.m')", 1),
        ("$.get('data.path')", "a.png"), ("$.get('none', 'd')", "d"),
        ("$", {"path": "a.png", "n": {"m": 1}}), ("$.get('data', {}) if $.get('status') else {}",
        {"path": "a.png", "n": {"m": 1}}),
    ],
)  # fmt: skip
def test_connector_result_unwraps_its_data_and_falls_back_to_the_envelope(
    source: str, value: Any
) -> None:
    envelope = {
        "status": True,
        "message": "fine",
        "extra": 5,
        "data": {"path": "a.png", "n": {"m": 1}},
    }
    assert evaluate(source, Scope(ConnectorResult(envelope), {})) == value


def test_connector_result_prefers_an_inner_envelope() -> None:
    inner = {"status": "inner", "data": [1]}
    scope = Scope(ConnectorResult({"status": True, "data": inner}), {})
    assert evaluate("[$.get('status'), $.get('data')]", scope) == ["inner", [1]]


@pytest.mark.parametrize("data", ["text", ["a"], 0, False])
def test_connector_result_gives_only_data_when_that_is_no_object(data: Any) -> None:
    scope = Scope(ConnectorResult({"status": True, "message": "m", "data": data}), {})
    assert evaluate("$", scope) == data
    assert evaluate("$.get('data')", scope) == data
    assert evaluate("$.get('message', 'd')", scope) == "d"


def test_connector_result_is_its_envelope_when_there_is_no_data() -> None:
    scope = Scope(ConnectorResult({"status": True, "path": "a"}), {}, fallbacks=({"more": 1},))
    assert evaluate("$.get('path')", scope) == "a"
    assert evaluate("$.get('data', {})", scope) == {}
    assert evaluate("$.get('more')", scope) == 1
    assert evaluate("$", scope) is None


def test_free_text_answers_for_the_usual_names() -> None:
    scope = Scope(FreeText("Hello"), {})
    for key in ("content", "text", "response", "result", "message"):
        assert evaluate(f"$.get('{key}')", scope) == "Hello"
    assert evaluate("$.get('choices')[0].get('message').get('content')", scope) == "Hello"
    assert evaluate("$.get('other', 'd')", scope) == "d"


def test_free_text_is_an_ordinary_string_when_it_is_a_value() -> None:
    scope = Scope(FreeText("Hello"), {})
    for source in ("$", "$.get('text')", "$.get('choices')[0]['message']['content']"):
        value = evaluate(source, scope)
        assert type(value) is str
        assert value == "Hello"
    assert FreeText("a") == "a"


def test_free_text_is_looked_into_when_it_is_a_json_object() -> None:
    scope = Scope(FreeText(' {"title": "T", "text": "inner", "a": {"b": 1}}'), {})
    assert evaluate("[$.get('title'), $.get('text'), $.get('a.b')]", scope) == ["T", "inner", 1]
    assert evaluate("$.get('content')", scope) == ' {"title": "T", "text": "inner", "a": {"b": 1}}'


@pytest.mark.parametrize("text", ["[1]", "{", "{'a': 1}", '{"a":' * 5000, "5", ""])
def test_free_text_is_only_text_when_it_is_no_json_object(text: str) -> None:
    scope = Scope(FreeText(text), {})
    assert evaluate("$.get('a', 'd')", scope) == "d"
    assert evaluate("$.get('text')", scope) == text


def test_own_subject_is_asked_for_its_keys_and_its_value() -> None:
    class Numbers:
        def __init__(self) -> None:
            self.value = [1, 2]

        def get(self, key: Any, default: Any = None) -> Any:
            return {"first": 1}.get(key, default)

    scope = Scope(Numbers(), {}, fallbacks=({"third": 3},))
    assert evaluate("[$.get('first'), $.get('third'), $.get('x', 0), $]", scope) == [
        1,
        3,
        0,
        [1, 2],
    ]


def test_free_text_is_written_as_json_like_any_text() -> None:
    assert json.dumps({"answer": FreeText("Hello")}) == '{"answer": "Hello"}'
