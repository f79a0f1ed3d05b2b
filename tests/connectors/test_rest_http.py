"""The built-in connector `http`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.rest import HttpConnector
from machina.egress import EgressClient, EgressPolicy
from machina.errors import ConnectorFailed
from tests.egress.server import NO_CERTIFICATES, Answer, Seen, Server, ok

SECRET = "sk-canary-0123456789"


class Http:
    """The connector, and a server that it may call."""

    def __init__(self, server: Server, client: EgressClient) -> None:
        self.server = server
        self.connector = HttpConnector(client)

    async def call(self, command: str, inputs: Any = None, **more: Any) -> ConnectorReply:
        block = {"url": self.server.url("/x"), **more.pop("block", {})}
        return await self.connector.call(
            ConnectorCall("run", "http", command, None, inputs or {}, block=block, **more)
        )

    async def sent(self, command: str, inputs: Any = None, **more: Any) -> Seen:
        await self.call(command, inputs, **more)
        return self.server.last


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = EgressClient(EgressPolicy.of("127.0.0.1"), certificates=NO_CERTIFICATES)
    async with Server() as server:
        yield Http(server, client)
    await client.aclose()


@pytest.mark.parametrize("verb", ["post", "PUT", " patch ", "Delete"])
async def test_inputs_are_the_json_body(http: Http, verb: str) -> None:
    seen = await http.sent(verb, {"a": [1], "none": None, "body": {"b": 1}})

    assert seen.method == verb.strip().upper()
    assert seen.json == {"a": [1], "none": None, "body": {"b": 1}}
    assert seen.headers["content-type"] == "application/json"


@pytest.mark.parametrize("verb", ["get", "head", "options"])
async def test_inputs_are_the_query_where_there_is_no_body(http: Http, verb: str) -> None:
    seen = await http.sent(verb, {"a": "x y", "none": None, "l": [1, 2], "t": True})

    assert (seen.method, seen.body) == (verb.upper(), b"")
    assert seen.query == [("a", "x y"), ("l", "1"), ("l", "2"), ("t", "true")]


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("/x?a=1&b=2", "/x?b=2&a=9&c=3"),
        ("/x#part", "/x?a=9&c=3"),
        ("/x?", "/x?a=9&c=3"),
    ],
)
async def test_the_query_of_the_url_stays_and_inputs_win(http: Http, url: str, target: str) -> None:
    block = {"url": f" {http.server.url(url)} "}

    assert (await http.sent("get", {"a": 9, "c": 3}, block=block)).target == target


async def test_a_post_without_inputs_has_no_body(http: Http) -> None:
    seen = await http.sent("post")

    assert (seen.body, seen.headers.get("content-type")) == (b"", None)


async def test_headers_are_sent_and_those_without_a_value_left_out(http: Http) -> None:
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "X-Null": None,
        "X-N": 5,
        "content-type": "application/vnd.x+json",
        "Host": "evil.test",
        "Content-Length": "1",
    }

    seen = await http.sent("post", {"a": 1}, block={"headers": headers})

    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert seen.headers["x-n"] == "5"
    assert seen.headers["content-type"] == "application/vnd.x+json"
    assert "x-null" not in seen.headers
    assert "evil" not in str(seen.headers)


async def test_context_variables_that_look_like_headers_are_sent_below_the_tasks_own(
    http: Http,
) -> None:
    credentials = {"authorization": "one", "x-key": "two", "other": "three"}

    seen = await http.sent(
        "get", block={"headers": {"Authorization": "own"}}, credentials=credentials
    )

    assert (seen.headers["authorization"], seen.headers["x-key"]) == ("own", "two")
    assert "three" not in str(seen)


async def test_the_url_may_be_an_input(http: Http) -> None:
    seen = await http.sent("get", {"url": http.server.url("/y"), "a": 1}, block={"url": None})

    assert seen.target == "/y?a=1"


@pytest.mark.parametrize("url", [None, "", " ", 5, {}])
async def test_a_call_without_a_url_fails(http: Http, url: Any) -> None:
    with pytest.raises(ConnectorFailed, match=r"connector\.url"):
        await http.call("get", block={"url": url})


@pytest.mark.parametrize("command", ["", "fetch", "get-items", "trace", "connect"])
async def test_other_verbs_are_unknown(http: Http, command: str) -> None:
    with pytest.raises(ConnectorFailed, match="get, post, put") as failed:
        await http.call(command)
    assert failed.value.code == "command_unknown"


async def test_the_result_is_parsed_and_a_failure_names_its_status(http: Http) -> None:
    http.server.answer = lambda seen: ok([1])
    assert (await http.call("get")).data == [1]

    http.server.answer = lambda seen: Answer(401, f"bad {SECRET}".encode())
    with pytest.raises(ConnectorFailed, match="HTTP 401: bad") as failed:
        await http.call("get", block={"headers": {"X-Key": SECRET}})
    assert SECRET not in failed.value.message


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/", "file:///etc/passwd", "http://a.test/\r\nX: 1", "nonsense"]
)
async def test_a_url_that_may_not_be_called_is_refused(http: Http, url: str) -> None:
    with pytest.raises(ConnectorFailed) as failed:
        await http.call("get", block={"url": url})
    assert failed.value.code == "egress_refused"


async def test_half_a_character_cannot_be_sent(http: Http) -> None:
    with pytest.raises(ConnectorFailed, match="half a character"):
        await http.call("get", {"a": "\ud800"})
