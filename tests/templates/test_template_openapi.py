"""The home-grown REST form, said in OpenAPI."""

from __future__ import annotations

from typing import Any

import pytest

from machina.templates.openapi import is_home_grown, translate

CONNECTOR: dict[str, Any] = {"name": "n", "host": "h.test", "commands": [{"path": "a"}]}


def test_every_command_becomes_an_operation() -> None:
    document = translate(
        {
            "name": "news",
            "version": 2,
            "scheme": "https",
            "host": "news.test/",
            "base_path": "/v1/",
            "auth": {"type": "api_key", "in": "query", "name": "key"},
            "commands": [
                {
                    "name": "find",
                    "method": "GET",
                    "path": "/news/{topic}",
                    "parameters": [
                        {"name": "topic"},
                        {"name": "page", "type": "integer", "required": True},
                        {"name": "X-Lang", "in": "header"},
                        "free",
                        7,
                    ],
                },
                {"value": "note", "method": "post", "path": "notes", "parameters": {"text": {}}},
                {"method": "fly", "path": "/x"},
                {"name": "without a path"},
            ],
        }
    )
    assert document["servers"] == [{"url": "https://news.test/v1"}]
    assert document["info"] == {"title": "news", "version": "2"}
    find = document["paths"]["/news/{topic}"]["get"]
    assert find["operationId"] == "find"
    assert find["parameters"] == [
        {"name": "topic", "in": "path", "required": True, "schema": {}},
        {"name": "page", "in": "query", "required": True, "schema": {"type": "integer"}},
        {"name": "X-Lang", "in": "header", "required": False, "schema": {}},
        {"name": "free", "in": "query", "required": False, "schema": {}},
    ]
    note = document["paths"]["/notes"]["post"]
    assert note["parameters"] == []
    schema = note["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"type": "object", "properties": {"text": {}}}
    assert list(document["paths"]) == ["/news/{topic}", "/notes"]
    assert document["components"]["securitySchemes"]["auth"] == {
        "type": "apiKey",
        "in": "query",
        "name": "key",
    }
    assert document["security"] == [{"auth": []}]


@pytest.mark.parametrize(
    ("auth", "scheme"),
    [
        ("bearer", {"type": "http", "scheme": "bearer"}),
        ({"type": "http", "scheme": "Basic"}, {"type": "http", "scheme": "basic"}),
        ({"type": "apiKey", "header": "X-A"}, {"type": "apiKey", "in": "header", "name": "X-A"}),
        ({"type": "key", "in": "x"}, {"type": "apiKey", "in": "header", "name": "x-api-key"}),
        ({"type": "none"}, None),
        (None, None),
    ],
)
def test_the_ways_to_authenticate_are_told_apart(auth: Any, scheme: Any) -> None:
    document = translate(CONNECTOR | {"auth": auth})
    assert document.get("components", {}).get("securitySchemes", {}).get("auth") == scheme


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "https://h.test"),
        ({"scheme": "http"}, "http://h.test"),
        ({"schemes": ["http", "https"]}, "http://h.test"),
        ({"host": "http://other.test", "base_path": "v2"}, "http://other.test/v2"),
    ],
)
def test_the_server_is_put_together(fields: dict[str, Any], url: str) -> None:
    assert translate(CONNECTOR | fields)["servers"] == [{"url": url}]


@pytest.mark.parametrize(
    "fields",
    [
        {"filecontent": "{}"},
        {"apiSpec": {"x": 1}},
        {"host": None},
        {"commands": []},
        {"commands": 1},
    ],
)
def test_only_a_connector_without_another_description_is_translated(fields: Any) -> None:
    assert is_home_grown(CONNECTOR)
    assert not is_home_grown(CONNECTOR | fields)
