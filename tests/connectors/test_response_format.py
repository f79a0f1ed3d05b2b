"""The schema as providers take it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from machina.connectors.llm.response_format import response_format


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Match summary (short)", "Match_summary_short"),
        ("x" * 100, "x" * 64),
        ("日本", "answer"),
        (None, "answer"),
        (7, "answer"),
    ],
)
def test_name_is_one_that_providers_accept_when_the_title_is_anything(
    title: Any, name: str
) -> None:
    said = response_format({"title": title, "type": "object"})
    assert said == {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": {"type": "object"}},
    }


def test_schema_is_reduced_when_it_uses_what_some_providers_refuse() -> None:
    schema = {
        "title": "T",
        "type": "object",
        "required": ["title"],
        "properties": {
            "title": {"title": "A title", "type": "string", "maxLength": 9, "description": "d"},
            "format": {"type": ["object", "null"], "properties": {"a": {"type": "integer"}}},
            "list": {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0}},
            "one": {"anyOf": [{"type": "null", "title": "x"}, {"enum": [{"title": "kept"}]}]},
        },
    }
    assert response_format(schema)["json_schema"]["schema"] == {
        "type": "object",
        "required": ["title"],
        "additionalProperties": False,
        "properties": {
            "title": {"type": "string", "description": "d (maxLength 9)"},
            "format": {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {"a": {"type": "integer"}},
                        "additionalProperties": False,
                    },
                    {"type": "null"},
                ]
            },
            "list": {
                "type": "array",
                "description": "minItems 1",
                "items": {"type": "number", "description": "minimum 0"},
            },
            "one": {"anyOf": [{"type": "null"}, {"enum": [{"title": "kept"}]}]},
        },
    }


@pytest.mark.parametrize(
    ("schema", "reduced"),
    [
        ({"type": "string", "format": "x-odd"}, {"type": "string", "description": "format x-odd"}),
        ({"type": "OBJECT"}, {"type": "object"}),
        ({"type": ["string", "null"], "enum": ["a", None]},
         {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}),
        ({"type": "string", "nullable": True}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"type": "number", "required": True, "minimum": "0"}, {"type": "number"}),
        ({"$ref": "https://evil.example.test/s.json"}, {}),
        ({"type": "object", "additionalProperties": {"type": "string", "minLength": 2}},
         {"type": "object",
          "additionalProperties": {"type": "string", "description": "minLength 2"}}),
        ({"type": "object", "properties": {"a": True}, "additionalProperties": True},
         {"type": "object", "properties": {"a": True}, "additionalProperties": True}),
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {}}),
        ({"type": "string", "pattern": "a" * 200}, {"type": "string"}),
    ],
)  # fmt: skip
def test_schema_is_one_that_providers_take_when_the_authors_is_odd(
    schema: dict[str, Any], reduced: dict[str, Any]
) -> None:
    assert response_format(schema)["json_schema"]["schema"] == reduced


def test_schema_is_bounded_when_the_authors_is_endless() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(2_000):
        deep = {"type": "object", "properties": {"a": deep}}
    wide: dict[str, Any] = {
        "properties": {f"p{n}": {"properties": {"x": {}}} for n in range(20_000)}
    }
    assert len(json.dumps(response_format(deep))) < 20_000
    assert len(json.dumps(response_format(wide))) < 2_000_000


def test_caller_keeps_the_original_when_the_schema_is_reduced() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}}
    response_format(schema)
    assert schema["properties"] == {"a": {"type": "string", "maxLength": 9}}
