"""Structured answers: found in what a model said, checked by the author's schema."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from datetime import date
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machina.connectors.llm.schema_answer import answer_for
from machina.engine.tasks import answers
from machina.engine.tasks.answers import AnswerInvalid, read_answer, read_checked
from machina.engine.tasks.schema_budget import CheckTooCostly
from machina.engine.tasks.schemas import MAX_CACHED, AnswerChecks, check
from machina.errors import DefinitionInvalid

TITLE = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}


@pytest.mark.parametrize(
    "text",
    [
        '{"title": "A"}',
        ' \n{"title": "A"}\n',
        '\ufeff{"title": "A"}',
        '```json\n{"title": "A"}\n```',
        '```\n{"title": "A"}\n```\n',
        'Sure!\n```JSON \n{"title": "A"}\n  ```\nAnything else?',
        'Here it is: {"title": "A"} I hope it helps.',
        '<think>A draft: {} or {"t": 1}, {broken</think>{"title": "A"}',
        '[1, 2]\n{"title": "A"}',
    ],
)
def test_the_answer_is_found_whatever_is_said_around_it(text: str) -> None:
    assert read_answer(text) == {"title": "A"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("I cannot.", "not valid JSON"),
        ("{}{}", "not valid JSON"),
        ('{"a": NaN}', "not valid JSON"),
        ("[]", "not an object"),
        ('"text"', "not an object"),
        ("```json\n[1]\n```", "not an object"),
    ],
)
def test_what_is_wrong_is_said_when_there_is_no_object(text: str, told: str) -> None:
    with pytest.raises(AnswerInvalid, match=told):
        read_answer(text)


def test_another_type_is_an_answer_when_the_schema_asks_for_it() -> None:
    assert read_answer("[1]", {"type": "ARRAY"}) == [1]
    assert read_answer("```json\n[1]\n```", {"type": "array"}) == [1]


@pytest.mark.parametrize("text", ["{" * 1_000_000, '{"a":' * 300_000, '{"a": "' * 100_000])
def test_looking_for_an_answer_ends_when_the_text_is_hostile(text: str) -> None:
    started = time.monotonic()
    with pytest.raises(AnswerInvalid):
        read_answer(text)
    assert time.monotonic() - started < 5


# the schema


def prop(**schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (TITLE, {"title": "x", "more": 1}, {}),
        (prop(type="string"), {"a": ""}, {"a": 7}),
        (prop(type="string", enum=["x", "y"]), {"a": "y"}, {"a": "z"}),
        (prop(type="string", maxLength=2), {"a": "xx"}, {"a": "xxx"}),
        (prop(type="string", pattern="^a+$"), {"a": "aa"}, {"a": "b"}),
        (prop(type="integer", minimum=1, maximum=2), {"a": 2}, {"a": 3}),
        (prop(type="integer"), {"a": 2.0}, {"a": 2.5}),
        (prop(type="array", minItems=2), {"a": [1, 1]}, {"a": [1]}),
        (prop(type="array", maxItems=1), {"a": []}, {"a": [1, 1]}),
        (prop(type="array", uniqueItems=True), {"a": [1, [1], {"b": 1}]}, {"a": [{}, {}]}),
        (prop(type="array", items={"type": "boolean"}), {"a": [True]}, {"a": [1]}),
        (prop(type=["object", "null"]), {"a": None}, {"a": 1}),
        (prop(type="string", nullable=True), {"a": None}, {"a": 1}),
        (prop(type="string", enum=["x"], nullable=True), {"a": None}, {"a": "y"}),
        (prop(type="OBJECT"), {"a": {}}, {"a": 1}),
        (prop(anyOf=[{"type": "integer"}, {"type": "null"}]), {"a": None}, {"a": "x"}),
        (
            {**prop(**{"$ref": "#/$defs/n"}), "$defs": {"n": {"type": "integer"}}},
            {"a": 1},
            {"a": "x"},
        ),
        ({**TITLE, "additionalProperties": False}, {"title": ""}, {"title": "", "x": 1}),
        (prop(type="array", items=[{"type": "integer"}]), {"a": [1, "x"]}, {"a": ["x"]}),
        ({"type": "array", "items": {"type": "integer"}}, [1], ["x"]),
        (prop(type="string", const="x"), {"a": "x"}, {"a": "y"}),
        (prop(type="number", default=date(2026, 1, 1)), {"a": 1}, {"a": "1"}),
    ],
)
async def test_an_answer_is_checked_by_the_original_schema(
    schema: dict[str, Any], right: Any, wrong: Any
) -> None:
    for _ in range(2):  # the second time by the kept schema, in place
        assert await read_checked(json.dumps(right), schema, "here") == right
        with pytest.raises(AnswerInvalid, match="it does not follow the schema"):
            await read_checked(json.dumps(wrong), schema, "here")


async def test_nothing_is_filled_in() -> None:
    assert await read_checked("{}", {"properties": {"a": {"default": 1}}}, "here") == {}


async def test_the_problems_are_named_with_their_places_and_not_at_length() -> None:
    schema = prop(type="array", items={"type": "object", "required": ["b"]})
    answer = json.dumps({"a": [{"b": 1}, {}, "x" * 10_000, *[7] * 50]})
    with pytest.raises(AnswerInvalid) as invalid:
        await read_checked(answer, schema, "here")
    told = str(invalid.value)
    assert "a[1]: 'b' is a required property" in told
    assert "a[2]: 'xxx" in told
    assert "a[6]" not in told
    assert len(told) < 2_000


@pytest.mark.parametrize(
    "schema",
    [
        prop(type="string", required=True),
        prop(type="str"),
        prop(type=[]),
        prop(type={"x": 1}),
        prop(enum="x"),
        prop(minimum="0", maximum=True, multipleOf=0, minLength=-1, maxItems=1.5),
        prop(pattern="(", properties=[1], items="x", anyOf={}, allOf=[]),
        prop(pattern=7),
        prop(format="no-such-format", examples=["x"]),
        prop(exclusiveMinimum=True),
        {"type": "object", "properties": {"a": "string"}, "required": "a"},
        {"type": "object", "properties": {True: {"type": "string"}}, 7: "x"},
        {"type": "object", "$schema": "http://json-schema.org/draft-99/schema#", "$id": "x:/y"},
        prop(**{"$ref": "#/nowhere"}),
        prop(**{"$ref": "x.json"}),
        prop(**{"$dynamicRef": "http://127.0.0.1:1/x"}),
        {"type": "object", "patternProperties": {"^(a+)+$": False}, "additionalProperties": False},
    ],
)
async def test_what_is_no_proper_keyword_asks_for_nothing(schema: Any) -> None:
    assert await read_checked('{"a": "x"}', schema, "here") == {"a": "x"}


# hostile schemas


async def test_a_schema_never_fetches_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        schema = {
            "$schema": address,
            "$id": address,
            "type": "object",
            "properties": {"a": {"$ref": address}, "b": {"$ref": f"{address}#/x"}},
            "allOf": [{"$ref": address}],
        }
        assert await read_checked('{"a": 1, "b": 2}', schema, "here") == {"a": 1, "b": 2}
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(.*)*x", r"(\w+\s?)+$", "(?=a)b"])
async def test_a_pattern_does_not_run_away(pattern: str) -> None:
    started = time.monotonic()
    with contextlib.suppress(AnswerInvalid):
        await read_checked(json.dumps({"a": "a" * 50_000 + "!"}), prop(pattern=pattern), "here")
    assert time.monotonic() - started < 5


async def test_a_schema_that_multiplies_fails_the_task_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "MAX_SECONDS", 0.2)
    names = [f"d{number}" for number in range(40)]
    doubled: dict[str, Any] = {
        name: {"anyOf": [{"$ref": f"#/$defs/{after}"}] * 2} for name, after in pairwise(names)
    }
    doubled["d39"] = {"required": ["z"]}
    schema = {"type": "object", "anyOf": [{"$ref": "#/$defs/d0"}], "$defs": doubled}
    with pytest.raises(DefinitionInvalid, match="takes too long to check"):
        await read_checked('{"a": 1}', schema, "task 'x'")


async def test_a_schema_that_points_at_itself_ends() -> None:
    with pytest.raises(AnswerInvalid, match="nested too deep"):
        await read_checked("{}", {"$ref": "#", "type": "object"}, "here")


async def test_a_deep_schema_is_checked_as_far_down_as_is_sensible() -> None:
    schema: dict[str, Any] = {"type": "string"}
    answer: Any = 7
    for _ in range(500):
        schema = {"type": "object", "properties": {"a": schema}}
        answer = {"a": answer}
    assert await read_checked(json.dumps(answer), schema, "here") == answer


async def test_a_deep_answer_to_a_recursive_schema_is_refused_not_followed() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    answer = '{"a":' * 600 + "{}" + "}" * 600
    with pytest.raises(AnswerInvalid, match="nested too deep"):
        await read_checked(answer, schema, "here")


async def test_a_large_answer_is_checked_where_it_blocks_nobody() -> None:
    schema = prop(type="array", items={"type": "object", "required": ["n"]})
    answer = {"a": [{"n": number} for number in range(5_000)]}
    assert await read_checked(json.dumps(answer), schema, "here") == answer


# what is kept


def test_a_schema_is_compiled_once_and_kept_by_its_content() -> None:
    checks = AnswerChecks(most=2)
    assert checks.find(TITLE) is None
    compiled = checks.compile(TITLE)
    assert checks.find(json.loads(json.dumps(TITLE))) is compiled
    checks.compile({"type": "object"})
    assert checks.find(TITLE) is compiled
    checks.compile({"type": "array"})
    assert checks.find({"type": "object"}) is None
    assert checks.find(TITLE) is compiled
    assert MAX_CACHED >= 100


def test_a_check_ends_when_its_steps_are_spent() -> None:
    problems = AnswerChecks().compile(TITLE)
    assert check(problems, {"title": "x"}, steps=10, seconds=1) == []
    with pytest.raises(CheckTooCostly):
        check(problems, {"title": "x"}, steps=1, seconds=1)


async def test_a_check_in_place_moves_to_a_thread_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schema = prop(type="array", items={"type": "integer"}, minItems=777)
    answer = {"a": list(range(777))}
    await read_checked(json.dumps(answer), schema, "here")
    assert answers._QUICK_STEPS < 777
    assert await read_checked(json.dumps(answer), schema, "here") == answer


_scalars: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"type": "string", "minLength": 3, "maxLength": 5},
        {"type": "string", "enum": ["x", "y"]},
        {"type": "integer", "minimum": 3, "exclusiveMaximum": 9},
        {"type": "integer", "maximum": -4, "multipleOf": 3},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 0.25},
        {"type": "number", "exclusiveMaximum": 0},
        {"type": "boolean", "default": False},
        {"type": "integer", "default": "five"},
        {"type": ["null", "string"]},
        {"type": "string", "format": "date-time"},
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "d"},
        {"allOf": [{"type": "object", "required": ["p"]}, {"properties": {"p": {"const": 1}}}]},
    ]
)
_schemas: st.SearchStrategy[dict[str, Any]] = st.recursive(
    _scalars,
    lambda inner: (
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least},
            inner,
            st.integers(0, 3),
        )
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3).map(
            lambda properties: {
                "type": "object",
                "properties": properties,
                "required": list(properties),
            }
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60)
@given(_schemas)
def test_the_scripted_models_answer_follows_every_schema(schema: dict[str, Any]) -> None:
    problems = AnswerChecks().compile(schema)
    assert check(problems, answer_for(schema), steps=10_000, seconds=10) == []
