"""What a call of a `restapi` connector sends: commands, paths, queries, headers and bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.rest import RestConnector
from machina.connectors.rest.model import Server as ApiServer
from machina.connectors.rest.servers import base_url
from machina.egress import EgressClient, EgressPolicy
from machina.errors import ConnectorFailed
from tests.egress.server import NO_CERTIFICATES, Answer, Seen, Server, ok

RUN = "65f000000000000000000001"


class Shop:
    """A REST connector with one API on a server of the test's own."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.client = EgressClient(EgressPolicy.of("127.0.0.1"), certificates=NO_CERTIFICATES)
        self.connector = RestConnector(self.client, lambda run_id: directory)
        self.spec: dict[str, Any] = {
            "openapi": "3.0.3",
            "servers": [{"url": server.url("/v1/")}, {"url": "http://second.test"}],
            "paths": {},
        }

    def path(self, path: str, method: str = "get", **operation: Any) -> None:
        """Adds an operation; `body` is the list of its content types."""
        kinds = operation.pop("body", None)
        if kinds is not None:
            operation["requestBody"] = {"content": {kind: {} for kind in kinds}}
        self.spec["paths"].setdefault(path, {})[method] = operation

    async def call(self, command: str, inputs: Any = None, **more: Any) -> ConnectorReply:
        definition = more.pop("definition", {"filecontent": json.dumps(self.spec)})
        return await self.connector.call(
            ConnectorCall(
                run_id=RUN,
                name="shop",
                command=command,
                definition=definition,
                inputs=inputs or {},
                where="task 't' of workflow 'w'",
                **more,
            )
        )

    async def sent(self, command: str, inputs: Any = None, **more: Any) -> Seen:
        """What one call sent."""
        await self.call(command, inputs, **more)
        return self.server.last


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Server() as server:
        shop = Shop(server, tmp_path)
        yield shop
        await shop.client.aclose()


def query(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", **more}


async def test_a_command_is_the_verb_and_the_path_template(shop: Shop) -> None:
    shop.path("/orders/{order_id}/items.json")

    seen = await shop.sent("get-orders/{order_id}/items.json", attributes={"order_id": "ns:7"})

    assert (seen.method, seen.target) == ("GET", "/v1/orders/ns:7/items.json")


@pytest.mark.parametrize(
    "command", ["get-items", "GET-items", " get-items ", "get-/items", "get-items/", "listItems"]
)
async def test_a_command_may_be_written_loosely_or_be_the_operation_id(
    shop: Shop, command: str
) -> None:
    shop.path("/items", operationId="listItems")

    assert (await shop.sent(command)).target == "/v1/items"


@pytest.mark.parametrize("verb", ["get", "post", "put", "patch", "delete", "head", "options"])
async def test_every_verb_can_be_called(shop: Shop, verb: str) -> None:
    shop.path("/x-y/{a-b}", verb)

    seen = await shop.sent(f"{verb}-x-y/{{a-b}}", attributes={"a-b": 1})

    assert (seen.method, seen.target) == (verb.upper(), "/v1/x-y/1")


async def test_a_path_without_its_leading_slash_is_found(shop: Shop) -> None:
    shop.path("items/list")

    assert (await shop.sent("get-items/list")).target == "/v1/items/list"


async def test_an_unknown_command_names_those_near_it(shop: Shop) -> None:
    shop.path("/schedule/{date}")
    shop.path("/teams")
    shop.path("/teams", "post")

    with pytest.raises(ConnectorFailed) as failed:
        await shop.call("get-schedules/{day}")

    assert failed.value.code == "command_unknown"
    assert "get-schedules/{day}" in failed.value.message
    assert "get-schedule/{date}" in failed.value.message
    assert shop.server.connections == 0


@pytest.mark.parametrize("command", ["put-teams", "teams", "-", "", "get-", "parameters-teams"])
async def test_a_command_that_means_nothing_is_unknown(shop: Shop, command: str) -> None:
    shop.path("/teams")
    shop.spec["paths"]["/teams"]["parameters"] = {}

    with pytest.raises(ConnectorFailed) as failed:
        await shop.call(command)
    assert failed.value.code == "command_unknown"


async def test_an_api_without_operations_says_so(shop: Shop) -> None:
    with pytest.raises(ConnectorFailed, match="no operations"):
        await shop.call("get-x")


async def test_path_parameters_come_from_attributes_then_inputs_then_the_connector(
    shop: Shop,
) -> None:
    declared = {"name": "lang", "in": "path", "schema": {"default": "en"}}
    shop.path("/{a}/{b}/{c}/{lang}", parameters=[declared])

    seen = await shop.sent(
        "get-{a}/{b}/{c}/{lang}",
        {"a": "no", "b": 2, "q": 1},
        attributes={"a": "yes", "c": None},
        credentials={"c": "outlet"},
    )

    assert seen.target == "/v1/yes/2/outlet/en?q=1"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("ns:item:5", "ns:item:5"),
        ("a/b", "a%2Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("ü x", "%C3%BC%20x"),
        ("%2e", "%252e"),
        ("..%2f", "..%252f"),
        ("a@b", "a@b"),
        (True, "true"),
        (3.5, "3.5"),
        ("x\r\nX-Evil: 1", "x%0D%0AX-Evil:%201"),
    ],
)
async def test_a_path_parameter_stays_one_segment(shop: Shop, value: Any, path: str) -> None:
    shop.path("/i/{id}")

    assert (await shop.sent("get-i/{id}", attributes={"id": value})).target == f"/v1/i/{path}"


@pytest.mark.parametrize("value", [None, "", ".", ".."])
async def test_a_path_parameter_without_a_usable_value_fails(shop: Shop, value: Any) -> None:
    shop.path("/i/{id}/x")

    with pytest.raises(ConnectorFailed, match="'id' in its path; give it in command_attribute"):
        await shop.call("get-i/{id}/x", attributes={"id": value})
    assert shop.server.connections == 0


async def test_an_input_that_repeats_a_path_parameter_is_not_sent_as_query(shop: Shop) -> None:
    shop.path("/i/{id}")

    seen = await shop.sent("get-i/{id}", {"id": "x", "page": 2}, attributes={"id": "y"})

    assert seen.target == "/v1/i/y?page=2"


async def test_a_query_that_is_part_of_the_path_is_kept(shop: Shop) -> None:
    shop.path("/list?kind=all&season={season}")

    seen = await shop.sent("get-list?kind=all&season={season}", {"season": 7, "page": 1})

    assert seen.query == [("kind", "all"), ("season", "7"), ("page", "1")]


async def test_inputs_are_the_query_whether_declared_or_not(shop: Shop) -> None:
    shop.path("/items", parameters=[query("limit"), query("ids", explode=False)])

    seen = await shop.sent(
        "get-items",
        {
            "limit": 5,
            "none": None,
            "yes": True,
            "no": False,
            "ratio": 0.5,
            "text": "a b&c=d",
            "list": [1, None, "x"],
            "empty": [],
            "ids": ["a", "b"],
            "object": {"k": [1]},
            "blank": "",
            "date": datetime(2024, 5, 1, 12, tzinfo=UTC),
            "body": "in a GET this is an input like any other",
        },
    )

    assert seen.query == [
        ("limit", "5"),
        ("ids", "a,b"),
        ("yes", "true"),
        ("no", "false"),
        ("ratio", "0.5"),
        ("text", "a b&c=d"),
        ("list", "1"),
        ("list", "x"),
        ("object", '{"k":[1]}'),
        ("blank", ""),
        ("date", "2024-05-01T12:00:00+00:00"),
        ("body", "in a GET this is an input like any other"),
    ]


async def test_the_style_of_a_query_parameter_is_heeded(shop: Shop) -> None:
    shop.path(
        "/items",
        parameters=[
            query("p", style="pipeDelimited", explode=False),
            query("s", style="spaceDelimited"),
            query("d", style="deepObject"),
        ],
    )

    seen = await shop.sent("get-items", {"p": [1, 2], "s": ["a", "b"], "d": {"x": 1, "y": [2, 3]}})

    assert seen.query == [("p", "1|2"), ("s", "a b"), ("d[x]", "1"), ("d[y]", "2"), ("d[y]", "3")]


async def test_an_attribute_fills_a_declared_query_parameter(shop: Shop) -> None:
    shop.path("/items", parameters=[query("limit")])

    seen = await shop.sent("get-items", attributes={"limit": 3, "unknown": 4})

    assert seen.query == [("limit", "3")]


async def test_declared_headers_and_cookies_are_taken_out_of_the_query(shop: Shop) -> None:
    places = {"X-Site": "header", "Accept-Language": "header", "flag": "cookie", "mood": "cookie"}
    shop.path("/items", parameters=[{"name": n, "in": p} for n, p in places.items()])

    seen = await shop.sent(
        "get-items", {"x-site": "de", "Accept-Language": ["de", "en"], "flag": True, "mood": "ok"}
    )

    assert seen.target == "/v1/items"
    assert seen.headers["x-site"] == "de"
    assert seen.headers["accept-language"] == "de,en"
    assert seen.headers["cookie"] == "flag=true; mood=ok"


async def test_headers_of_the_connection_cannot_be_set(shop: Shop) -> None:
    names = ("Host", "Content-Length", "Transfer-Encoding")
    shop.path("/items", parameters=[{"name": n, "in": "header"} for n in names])

    seen = await shop.sent("get-items", dict.fromkeys(names, "evil"))

    assert "evil" not in str(seen.headers)


async def test_a_header_with_a_line_break_is_refused(shop: Shop) -> None:
    shop.path("/items", parameters=[{"name": "X-A", "in": "header"}])

    with pytest.raises(ConnectorFailed) as failed:
        await shop.call("get-items", {"X-A": "1\r\nX-Evil: 1"})
    assert failed.value.code == "egress_refused"
    assert shop.server.connections == 0


async def test_parameters_of_the_path_and_references_are_resolved(shop: Shop) -> None:
    shop.path("/items/{id}", parameters=[{"$ref": "#/components/parameters/Site~1Name"}])
    item = shop.spec["paths"]["/items/{id}"]
    item["parameters"] = [{"$ref": "#/components/parameters/Lang"}, {"name": "id", "in": "path"}]
    shop.spec["components"] = {
        "parameters": {
            "Site/Name": {"$ref": "#/components/parameters/Inner"},
            "Inner": {"name": "X-Site", "in": "header"},
            "Lang": {"name": "X-Lang", "in": "header"},
        }
    }

    seen = await shop.sent("get-items/{id}", {"X-Site": "s", "X-Lang": "l", "id": 1})

    assert (seen.headers["x-site"], seen.headers["x-lang"]) == ("s", "l")
    assert seen.target == "/v1/items/1"


async def test_references_that_lead_nowhere_or_in_circles_are_no_parameters(shop: Shop) -> None:
    shop.spec["components"] = {"parameters": {"A": {"$ref": "#/components/parameters/B"}}}
    shop.spec["components"]["parameters"]["B"] = {"$ref": "#/components/parameters/A"}
    references = [
        "#/components/parameters/A",
        "#/nowhere",
        "other.yml#/x",
        "https://evil.test/p.json",
        "#/paths/~1items/get/parameters/99",
        "#",
        7,
    ]
    nodes: list[Any] = [{"$ref": reference} for reference in references]
    shop.path("/items", parameters=[*nodes, "text", None, {"name": "only"}, {"in": "query"}])

    assert (await shop.sent("get-items", {"a": 1})).query == [("a", "1")]


async def test_a_path_item_may_be_a_reference(shop: Shop) -> None:
    shop.spec["paths"]["/a"] = {"$ref": "#/x-items/0"}
    shop.spec["x-items"] = [{"get": {}}]

    assert (await shop.sent("get-a")).target == "/v1/a"


async def test_a_body_is_sent_as_json(shop: Shop) -> None:
    shop.path("/orders", "post", body=["application/json"], parameters=[query("dry")])

    body = {"n": [1, None], "d": date(2024, 5, 1), "s": {7}}
    seen = await shop.sent("post-orders", {"body": body, "dry": True, "more": "x"})

    assert seen.json == {"n": [1, None], "d": "2024-05-01", "s": [7]}
    assert seen.headers["content-type"] == "application/json"
    assert seen.query == [("dry", "true"), ("more", "x")]


async def test_a_body_needs_no_declaration(shop: Shop) -> None:
    shop.path("/orders", "post")

    assert (await shop.sent("post-orders", {"body": {"n": 1}})).json == {"n": 1}


@pytest.mark.parametrize(
    ("body", "sent"), [('{"a": 1}', b'{"a": 1}'), ("{no json", b'"{no json"'), ("text", b'"text"')]
)
async def test_a_text_that_is_json_is_not_encoded_twice(shop: Shop, body: str, sent: bytes) -> None:
    shop.path("/orders", "post")

    assert (await shop.sent("post-orders", {"body": body})).body == sent


async def test_a_post_without_a_body_sends_its_inputs_as_json(shop: Shop) -> None:
    places = [query("dry"), {"name": "X-Site", "in": "header"}]
    shop.path("/orders/{id}", "post", parameters=places)

    seen = await shop.sent(
        "post-orders/{id}", {"id": 1, "a": None, "b": 2, "dry": True, "X-Site": "s"}
    )

    assert seen.json == {"a": None, "b": 2}
    assert seen.query == [("dry", "true")]
    assert seen.headers["x-site"] == "s"


async def test_a_post_without_inputs_has_no_body(shop: Shop) -> None:
    shop.path("/ping", "post")

    seen = await shop.sent("post-ping")

    assert (seen.body, seen.headers.get("content-type")) == (b"", None)


async def test_a_body_that_is_null_is_none(shop: Shop) -> None:
    shop.path("/ping", "post")

    seen = await shop.sent("post-ping", {"body": None, "a": 1})

    assert (seen.body, seen.query) == (b"", [("a", "1")])


async def test_a_delete_may_have_a_body(shop: Shop) -> None:
    shop.path("/orders", "delete")

    assert (await shop.sent("delete-orders", {"body": {"ids": [1]}})).json == {"ids": [1]}


async def test_a_form_is_encoded_as_one(shop: Shop) -> None:
    shop.path("/token", "post", body=["application/x-www-form-urlencoded"])

    seen = await shop.sent(
        "post-token", {"body": {"a": "x y&z", "n": 1, "t": True, "none": None, "l": [1, 2]}}
    )

    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert seen.body == b"a=x%20y%26z&n=1&t=true&l=1&l=2"


async def test_a_form_that_is_no_dictionary_fails(shop: Shop) -> None:
    shop.path("/token", "post", body=["application/x-www-form-urlencoded"])

    assert (await shop.sent("post-token", {"body": "a=1"})).body == b"a=1"
    with pytest.raises(ConnectorFailed, match="must be a dictionary"):
        await shop.call("post-token", {"body": [1]})


@pytest.mark.parametrize(
    ("kinds", "sent"),
    [
        (["text/plain"], "text/plain"),
        (["application/xml", "application/json"], "application/json"),
        (["application/vnd.shop+json; charset=utf-8"], "application/vnd.shop+json; charset=utf-8"),
        (["*/*"], "application/json"),
    ],
)
async def test_the_content_type_is_json_where_it_may_be(
    shop: Shop, kinds: list[str], sent: str
) -> None:
    shop.path("/x", "post", body=kinds)

    assert (await shop.sent("post-x", {"body": "{}"})).headers["content-type"] == sent


async def test_a_declared_content_type_header_decides(shop: Shop) -> None:
    shop.path("/x", "post", parameters=[{"name": "Content-Type", "in": "header"}])
    form = "application/x-www-form-urlencoded"

    seen = await shop.sent("post-x", {"Content-Type": form, "body": {"a": 1}})

    assert (seen.headers["content-type"], seen.body) == (form, b"a=1")


async def test_a_body_may_be_a_reference(shop: Shop) -> None:
    shop.path("/x", "post")
    shop.spec["paths"]["/x"]["post"]["requestBody"] = {"$ref": "#/components/requestBodies/F"}
    form: Any = {"content": {"application/x-www-form-urlencoded": {}}}
    shop.spec["components"] = {"requestBodies": {"F": form}}

    assert (await shop.sent("post-x", {"body": {"a": 1}})).body == b"a=1"


@pytest.mark.parametrize("value", [2**70, "\ud800", {"x": "\udfff"}])
async def test_a_value_that_cannot_be_written_fails_the_call(shop: Shop, value: Any) -> None:
    shop.path("/x", "post")
    shop.path("/x")

    with pytest.raises(ConnectorFailed) as failed:
        await shop.call("post-x", {"body": {"v": value}})
    assert failed.value.code == "connector_failed"
    if value != 2**70:
        with pytest.raises(ConnectorFailed):
            await shop.call("get-x", {"v": value})
    assert shop.server.connections == 0


async def test_a_server_variable_is_filled_from_attributes_or_its_default(shop: Shop) -> None:
    variables = {
        "version": {"default": "v1", "enum": ["v1", "v2"]},
        "tenant": {"default": "none"},
    }
    url = shop.server.url("/{tenant}/{version}")
    shop.spec["servers"] = [{"url": url, "variables": variables}]
    shop.path("/x")

    assert (await shop.sent("get-x")).target == "/none/v1/x"
    seen = await shop.sent("get-x", attributes={"version": "v2"}, credentials={"tenant": "acme"})
    assert seen.target == "/acme/v2/x"


@pytest.mark.parametrize(
    "attributes",
    [{"version": "v3"}, {"tenant": "a/b"}, {"tenant": "evil.test/"}, {"tenant": "u@evil.test"}],
)
async def test_a_server_variable_cannot_lead_elsewhere(shop: Shop, attributes: Any) -> None:
    variables = {"version": {"default": "v1", "enum": ["v1"]}, "tenant": {"default": "t"}}
    url = shop.server.url("/{tenant}/{version}")
    shop.spec["servers"] = [{"url": url, "variables": variables}]
    shop.path("/x")

    with pytest.raises(ConnectorFailed, match="not allowed there"):
        await shop.call("get-x", attributes=attributes)


async def test_a_server_variable_without_a_value_is_named(shop: Shop) -> None:
    shop.spec["servers"] = [{"url": "https://{region}.shop.test"}]
    shop.path("/x")

    with pytest.raises(ConnectorFailed, match="'region'; give it in command_attribute"):
        await shop.call("get-x")


async def test_an_operation_may_have_a_server_of_its_own(shop: Shop) -> None:
    shop.path("/x", servers=[{"url": shop.server.url("/own")}])
    shop.path("/y", servers=[{"url": "/other"}])

    assert (await shop.sent("get-x")).target == "/own/x"
    assert (await shop.sent("get-y")).target == "/other/y"


async def test_a_relative_server_needs_the_url_of_the_task(shop: Shop) -> None:
    shop.spec["servers"] = [{"url": "/api/v2"}]
    shop.path("/x")

    seen = await shop.sent("get-x", block={"url": shop.server.url("/ignored")})
    assert seen.target == "/api/v2/x"
    with pytest.raises(ConnectorFailed, match=r"absolute URL in servers\[0\].url"):
        await shop.call("get-x")


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("//api.test/v1/", "https://api.test/v1"),
        ("/", "https://own.test/base"),
        (".", "https://own.test/base"),
        ("v2", "https://own.test/base/v2"),
        ("/v2/", "https://own.test/v2"),
        (None, "https://own.test/base"),
    ],
)
def test_what_a_server_is_completed_to(server: str | None, url: str) -> None:
    call = ConnectorCall("r", "shop", "c", None, block={"url": "https://own.test/base/"})

    assert base_url(ApiServer(server) if server else None, None, call) == url


async def test_the_url_of_the_task_is_not_used_when_there_is_a_server(shop: Shop) -> None:
    shop.path("/x")

    seen = await shop.sent("get-x", {"url": "https://other.test"}, block={"url": "http://no.test"})

    assert seen.query == [("url", "https://other.test")]


async def test_an_api_that_only_others_may_call_is_refused(shop: Shop) -> None:
    shop.spec["servers"] = [{"url": "http://10.0.0.1"}]
    shop.path("/x")

    with pytest.raises(ConnectorFailed, match="MACHINA_EGRESS_ALLOW") as failed:
        await shop.call("get-x")
    assert failed.value.code == "egress_refused"


async def test_the_timeout_of_a_call_is_kept_and_a_timeout_input_is_an_input(shop: Shop) -> None:
    shop.path("/x")

    assert (await shop.sent("get-x", {"timeout": 5})).query == [("timeout", "5")]

    async def forever() -> AsyncIterator[bytes]:

        yield b"x"
        await asyncio.sleep(30)

    shop.server.answer = lambda seen: Answer(stream=forever)
    with pytest.raises(ConnectorFailed) as failed:
        await shop.call("get-x", timeout_seconds=0.2)
    assert failed.value.code == "connector_timeout"


async def test_one_connection_serves_call_after_call(shop: Shop) -> None:
    shop.path("/x")
    shop.server.answer = lambda seen: ok({})

    for _ in range(5):
        await shop.call("get-x")

    assert shop.server.connections == 1
