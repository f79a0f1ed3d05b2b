"""Where the description of an API may stand, and the home-grown form of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from machina.connectors.rest import specs
from machina.connectors.rest.specs import Apis
from machina.errors import ConnectorFailed
from tests.connectors.test_rest_calls import Shop
from tests.egress.server import Server

SPEC = {"servers": [{"url": "https://a.test"}], "paths": {"/x": {"get": {}}}}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Server() as server:
        shop = Shop(server, tmp_path)
        shop.path("/x")
        yield shop
        await shop.client.aclose()


@pytest.mark.parametrize(
    "definition",
    [
        {"filecontent": json.dumps(SPEC)},
        {"filecontent": "\ufeff\n" + json.dumps(SPEC, indent=2)},
        {"filecontent": yaml.safe_dump(SPEC)},
        {"filecontent": "{paths: {/x: {get: {}}}}"},
        {"filecontent": SPEC},
        {"apiSpec": SPEC},
        {"apiSpec": json.dumps(SPEC)},
        {"filecontent": "", "apiSpec": SPEC},
        {"filecontent": None, "apiSpec": SPEC},
    ],
)
async def test_a_description_is_found_in_every_form(definition: dict[str, Any]) -> None:
    api = await Apis().of("shop", definition)
    assert api.find("get-x") is not None


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ({}, "has no OpenAPI document"),
        ({"filename": "shop.json"}, "has no OpenAPI document"),
        ({"filecontent": "  "}, "has no OpenAPI document"),
        ({"filecontent": "[1]"}, "is no mapping"),
        ({"filecontent": "just text"}, "is no mapping"),
        ({"filecontent": "# nothing"}, "is no mapping"),
        ({"filecontent": "a: [1"}, "neither JSON nor YAML"),
        ({"filecontent": "a: !!python/object/apply:os.system [x]"}, "neither JSON nor YAML"),
        ({"filecontent": "{}"}, "without paths"),
        ({"apiSpec": {"paths": []}}, "without paths"),
        ({"filecontent": "x" * 100 + "\n" + "#" * 1_000}, "too large"),
    ],
)
async def test_a_description_that_cannot_be_read_is_named(
    definition: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specs, "MAX_CHARACTERS", 1_000)
    with pytest.raises(ConnectorFailed, match=problem) as failed:
        await Apis().of("shop", definition)
    assert "'shop'" in failed.value.message


async def test_a_description_is_compiled_once_per_content() -> None:
    apis = Apis()
    one = await apis.of("a", {"filecontent": json.dumps(SPEC)})
    same = await apis.of("b", {"filecontent": json.dumps(SPEC)})
    inline = await apis.of("c", {"apiSpec": SPEC})

    assert one is same
    assert inline is await apis.of("d", {"apiSpec": dict(SPEC)})
    assert inline is not one
    assert one.find("get-x") is one.find("get-x")


async def test_what_was_used_least_recently_is_dropped_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(specs, "KEPT", 2)
    apis = Apis()
    definitions = [{"apiSpec": {**SPEC, "info": n}} for n in range(3)]
    first, second = [await apis.of("a", d) for d in definitions[:2]]
    assert await apis.of("a", definitions[0]) is first

    await apis.of("a", definitions[2])

    assert await apis.of("a", definitions[0]) is first
    assert await apis.of("a", definitions[1]) is not second


async def test_large_descriptions_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs, "KEPT_CHARACTERS", 300_000)
    apis = Apis()
    large = [json.dumps({**SPEC, "info": f"{n}" * 100_000}) for n in range(4)]
    apis_of = [await apis.of("a", {"filecontent": text}) for text in large]

    assert await apis.of("a", {"filecontent": large[3]}) is apis_of[3]
    assert await apis.of("a", {"filecontent": large[0]}) is not apis_of[0]


async def test_a_call_works_with_an_inline_description(shop: Shop) -> None:
    await shop.call("get-x", definition={"apiSpec": shop.spec})

    assert shop.server.last.target == "/v1/x"


def legacy(server: Server, **more: Any) -> dict[str, Any]:
    """A connector in the home-grown form."""
    return {
        "name": "news",
        "version": "1.0",
        "scheme": "http",
        "host": f"127.0.0.1:{server.port}",
        "base_path": "/api/v2",
        "commands": [
            {
                "name": "Search news",
                "value": "search",
                "method": "GET",
                "path": "/search/{topic}",
                "parameters": [
                    {"name": "topic", "required": True},
                    {"name": "limit", "in": "query", "default": 5},
                    {"name": "X-Site", "in": "header"},
                    "q",
                    7,
                ],
                "outputs": {"items": "$.items"},
            },
            {
                "name": "send",
                "method": "post",
                "path": "send",
                "parameters": {"text": {}, "to": {"in": "body"}, "dry": {"in": "query"}},
            },
            {"name": "odd", "method": "brew", "path": "/pot"},
            {"name": "label only", "value": "label"},
            "text",
        ],
        **more,
    }


@pytest.mark.parametrize("command", ["search", "Search news", "get-search/{topic}"])
async def test_a_home_grown_description_is_called_like_any_other(shop: Shop, command: str) -> None:
    seen = await shop.sent(
        command,
        {"topic": "a:b", "limit": 2, "X-Site": "s", "q": "x"},
        definition=legacy(shop.server),
    )

    assert (seen.method, seen.target) == ("GET", "/api/v2/search/a:b?limit=2&q=x")
    assert seen.headers["x-site"] == "s"


async def test_parameters_of_a_home_grown_post_are_its_body(shop: Shop) -> None:
    seen = await shop.sent(
        "send", {"text": "hi", "to": "you", "dry": True}, definition=legacy(shop.server)
    )

    assert (seen.path, seen.query) == ("/api/v2/send", [("dry", "true")])
    assert seen.json == {"text": "hi", "to": "you"}


@pytest.mark.parametrize("command", ["odd", "label", "brew-pot"])
async def test_a_home_grown_command_without_a_request_is_unknown(shop: Shop, command: str) -> None:
    with pytest.raises(ConnectorFailed) as failed:
        await shop.call(command, definition=legacy(shop.server))
    assert failed.value.code == "command_unknown"


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("bearer", ("authorization", "Bearer k")),
        ({"type": "bearer"}, ("authorization", "Bearer k")),
        ({"type": "api_key", "header": "X-Key"}, ("x-key", "k")),
        ({"type": "apiKey", "name": "X-Key", "in": "header"}, ("x-key", "k")),
        ({"type": "api_key", "param": "token"}, ("query", "token=k")),
        ({"type": "query", "name": "token"}, ("query", "token=k")),
        ({"type": "params", "name": "token"}, ("query", "token=k")),
        ({"type": "http", "scheme": "bearer"}, ("authorization", "Bearer k")),
        ({"mine": {"type": "apiKey", "name": "X-Key"}}, ("x-key", "k")),
        ({"type": "magic"}, None),
        (None, None),
        ([], None),
    ],
)
async def test_the_auth_of_a_home_grown_description(
    shop: Shop, auth: Any, expected: tuple[str, str] | None
) -> None:
    seen = await shop.sent(
        "send", definition=legacy(shop.server, auth=auth), credentials={"api_key": "k"}
    )

    found = {**seen.headers, "query": seen.target.partition("?")[2]}
    if expected is None:
        assert "k" not in (found.get("authorization"), found.get("x-key"))
    else:
        assert found[expected[0]] == expected[1]


async def test_basic_auth_of_a_home_grown_description(shop: Shop) -> None:
    seen = await shop.sent(
        "send",
        definition=legacy(shop.server, auth="basic"),
        credentials={"username": "u", "password": "p"},
    )

    assert seen.headers["authorization"] == "Basic dTpw"


@pytest.mark.parametrize("form", ["file", "inline", "mapping"])
async def test_a_home_grown_description_may_stand_in_a_file(shop: Shop, form: str) -> None:
    definition = legacy(shop.server)
    del definition["base_path"]
    definition["host"] = shop.server.url("/").removesuffix("/")
    commands = {c["name"]: c for c in definition["commands"] if isinstance(c, dict)}
    if form == "mapping":
        definition["commands"] = commands
    if form == "file":
        definition = {"filecontent": json.dumps(definition)}
    if form == "inline":
        definition = {"apiSpec": definition}

    assert (await shop.sent("send", definition=definition)).target == "/send"
