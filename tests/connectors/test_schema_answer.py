"""The smallest instance of a schema."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.connectors.llm.schema_answer import MAX_VALUES, answer_for


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, "answer"),
        ({"type": "string"}, "answer"),
        ({"type": "integer"}, 0),
        ({"type": "number"}, 0),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": "nonsense"}, "answer"),
        ({"type": ["object", "null"], "properties": {"a": {"type": "integer"}}}, {"a": 0}),
        ({"const": 7}, 7),
        ({"enum": ["b", "a"]}, "b"),
        ({"enum": ["b", "a"], "default": "a"}, "b"),
        ({"type": "integer", "default": 5}, 5),
        ({"type": "integer", "minimum": 1.5}, 2),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "number", "minimum": 0.5}, 0.5),
        ({"type": "number", "maximum": -0.5}, -0.5),
        ({"type": "number", "minimum": math.inf}, 0),
        ({"type": "string", "minLength": 9}, "answer..."),
        ({"type": "string", "maxLength": 3}, "ans"),
        ({"type": "string", "format": "date"}, "2024-01-01"),
        ({"type": "array"}, ["answer"]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [0, 0, 0]),
        ({"type": "array", "maxItems": 0}, []),
        ({"items": {"type": "boolean"}}, [True]),
        ({"required": ["a"]}, {"a": "a"}),
        ({"properties": {"a": {"type": "string"}}, "required": ["b"]}, {"a": "a", "b": "b"}),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"allOf": [{"type": "integer"}]}, 0),
        ({"$ref": "#/$defs/x~1y", "$defs": {"x/y": {"const": 1}}}, 1),
        ({"$ref": "#/nowhere"}, "answer"),
    ],
)
def test_value_has_the_shape_when_the_schema_says_it(schema: dict[str, Any], value: Any) -> None:
    assert answer_for(schema) == value


def test_value_is_bounded_when_the_schema_refers_to_itself() -> None:
    node = {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}}
    assert len(json.dumps(answer_for(node))) < 100_000


def test_value_is_bounded_when_arrays_nest_and_demand_many_items() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(20):
        schema = {"type": "array", "items": schema, "minItems": 10**9}
    assert json.dumps(answer_for(schema)).count("null") <= 40 * MAX_VALUES


_KEYS = ("type", "items", "properties", "enum", "default", "anyOf", "$ref", "minimum", "minItems")
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.sampled_from(["object", "#"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(_KEYS), _values))
def test_some_value_comes_when_the_schema_is_nonsense(schema: dict[str, Any]) -> None:
    assert len(json.dumps(answer_for(schema), default=str)) < 1_000_000
