"""The schema as providers take it."""

from __future__ import annotations

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
        "properties": {
            "title": {"type": "string", "description": "d"},
            "format": {
                "anyOf": [
                    {"type": "object", "properties": {"a": {"type": "integer"}}},
                    {"type": "null"},
                ]
            },
            "list": {"type": "array", "items": {"type": "number"}},
            "one": {"anyOf": [{"type": "null"}, {"enum": [{"title": "kept"}]}]},
        },
    }


def test_caller_keeps_the_original_when_the_schema_is_reduced() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}}
    response_format(schema)
    assert schema["properties"] == {"a": {"type": "string", "maxLength": 9}}
