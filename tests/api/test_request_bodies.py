"""Bodies: the variants that existing clients send, and the limits of what is read at all."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from machina.api.bodies import fingerprint, read_agent_body, read_workflow_body
from machina.api.json_body import MAX_DEPTH, MAX_DIGITS, MAX_KEYS, read_json, read_object
from machina.api.problems import UnsupportedMediaType
from machina.errors import Invalid, MachinaError, TooLarge
from tests.api.harness import Api, assert_problem, make_settings, running_api
from tests.services import RedisServer

M = {"role": "user", "content": "Hello", "timestamp": "2026-11-24T12:00:00Z"}
OLD = {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
THREAD = "692431f0a1b2c3d4e5000002"


def make_request(body: bytes, content_type: str | None = None) -> Request:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    sent = False

    async def receive() -> Message:
        nonlocal sent
        assert not sent
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


@pytest.mark.parametrize(
    ("body", "payload", "thread_id", "stream_workflows"),
    [
        pytest.param(
            {
                "context-agent": {"messages": [M], "status_message": "…", "thread_id": ""},
                "messages": [M],
                "skip_delay": True,
                "stream": True,
                "stream_workflows": False,
            },
            {"messages": [M], "status_message": "…"},
            None,
            False,
            id="boilerplate adapter, new conversation",
        ),
        pytest.param(
            {
                "stream_workflows": True,
                "context-agent": {"thread_id": THREAD, "messages": [M], "status_message": "…"},
            },
            {"messages": [M], "status_message": "…", "thread_id": THREAD},
            THREAD,
            True,
            id="web app adapter, messages only inside the context",
        ),
        pytest.param(
            {
                "messages": [OLD, M],
                "stream_workflows": True,
                "context-agent": {"thread_id": THREAD},
            },
            {"messages": [OLD, M], "thread_id": THREAD},
            THREAD,
            True,
            id="service, messages only at the top",
        ),
        pytest.param({"messages": [M]}, {"messages": [M]}, None, False, id="curl"),
        pytest.param({}, {}, None, False, id="nothing"),
        pytest.param(
            {"query": "Lisbon", "inputs": {"a": 1}, "context": None},
            {"query": "Lisbon", "inputs": {"a": 1}, "context": None},
            None,
            False,
            id="flat inputs",
        ),
        pytest.param(
            {"x": 1, "context-agent": {"x": 2, "y": 3}, "agent-config": {"delay": True}},
            {"x": 2, "y": 3},
            None,
            False,
            id="the context wins over flat inputs",
        ),
        pytest.param(
            {"messages": [M], "context-agent": {"messages": []}},
            {"messages": [M]},
            None,
            False,
            id="an empty list does not hide the other",
        ),
        pytest.param(
            {"context-agent": {"messages": []}}, {"messages": []}, None, False, id="no messages yet"
        ),
        pytest.param(
            {
                "context-agent": None,
                "messages": None,
                "agent-config": None,
                "stream_workflows": None,
            },
            {},
            None,
            False,
            id="nulls mean nothing",
        ),
        pytest.param(
            {"thread_id": THREAD}, {"thread_id": THREAD}, THREAD, False, id="thread at the top"
        ),
    ],
)
def test_an_agents_payload_is_what_each_client_means(
    body: dict[str, Any], payload: dict[str, Any], thread_id: str | None, stream_workflows: bool
) -> None:
    before = orjson.dumps(body)
    read = read_agent_body(body)
    assert read.payload == payload
    assert (read.thread_id, read.stream_workflows) == (thread_id, stream_workflows)
    assert orjson.dumps(body) == before


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        ({"context-workflow": {"a": 1, "b": "x"}}, {"a": 1, "b": "x"}),
        ({}, {}),
        ({"request_id": "r", "decision": "approve"}, {"request_id": "r", "decision": "approve"}),
        ({"a": 1, "skip_delay": True, "stream": True, "stream_workflows": True}, {"a": 1}),
        ({"context-workflow": {}, "a": 1}, {}),
        ({"context-workflow": "text", "a": 1}, {"context-workflow": "text", "a": 1}),
    ],
)
def test_a_workflows_inputs_are_the_wrapped_object_or_the_body(
    body: dict[str, Any], payload: dict[str, Any]
) -> None:
    assert read_workflow_body(body).payload == payload


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"context-agent": []}, "context-agent"),
        ({"agent-config": "x"}, "agent-config"),
        ({"agent-config": {"delay": "true"}}, "agent-config.delay"),
        ({"stream_workflows": 1}, "stream_workflows"),
        ({"on_disconnect": "stop"}, "on_disconnect"),
        ({"on_disconnect": ["cancel"]}, "on_disconnect"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages"),
        ({"context-agent": {"messages": {}}}, "messages"),
        ({"thread_id": 7}, "thread_id"),
        ({"thread_id": "x" * 201}, "thread_id"),
        ({"thread_id": "a\nb"}, "thread_id"),
    ],
)
def test_a_key_of_the_wrong_type_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_agent_body(body)
    assert refused.value.field == field


def test_a_disconnect_cancels_only_when_asked() -> None:
    assert not read_agent_body({}).cancel_on_disconnect
    assert not read_agent_body({"on_disconnect": "continue"}).cancel_on_disconnect
    assert read_agent_body({"on_disconnect": "cancel"}).cancel_on_disconnect


def test_bodies_that_mean_the_same_have_the_same_fingerprint() -> None:
    same = fingerprint({"a": {"x": 1, "y": [1, 2]}, "b": "é"})
    assert fingerprint({"b": "é", "a": {"y": [1, 2], "x": 1}}) == same
    assert fingerprint({"a": {"x": 1, "y": [1, 2]}, "b": "é", "stream": 1, "skip_delay": 0}) == same
    for other in ({"a": {"x": 1, "y": [2, 1]}, "b": "é"}, {"a": {"x": "1", "y": [1, 2]}, "b": "é"}):
        assert fingerprint(other) != same
    assert fingerprint({"stream_workflows": True}) != fingerprint({})


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_any_object_is_read_or_refused_but_never_crashes(body: dict[str, Any]) -> None:
    try:
        raw = orjson.dumps(body)
    except orjson.JSONEncodeError:  # not JSON: a surrogate, or an integer beyond 64 bits
        return
    for read in (read_agent_body, read_workflow_body):
        try:
            assert set(read(orjson.loads(raw)).payload) <= set(body)
        except Invalid as refused:
            assert refused.field in body  # noqa: PT017  # either way is right


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        "application/vnd.api+json",
        "text/plain",
        "application/x-www-form-urlencoded",  # what `curl -d` says
        "nonsense",
    ],
)
async def test_a_body_that_parses_is_read_whatever_its_type(content_type: str | None) -> None:
    assert await read_object(make_request(b'{"a": 1}', content_type)) == {"a": 1}


@pytest.mark.parametrize("body", [b"", b"  \r\n", b"{}", b"\xef\xbb\xbf{}"])
async def test_an_empty_body_is_an_empty_object(body: bytes) -> None:
    assert await read_object(make_request(body)) == {}


@pytest.mark.parametrize("body", [b"[1]", b"null", b'"x"', b"7", b"true"])
async def test_what_is_not_an_object_is_refused_with_the_remedy(body: bytes) -> None:
    with pytest.raises(Invalid, match="send an object"):
        await read_object(make_request(body, "application/json"))
    assert await read_json(make_request(body)) == orjson.loads(body)


@pytest.mark.parametrize(
    "body",
    [b"{", b"a=1&b=2", b'{"a": NaN}', b"{'a': 1}", b'{"a": 1} x', b'{"a": "\\ud800"}', b"\xff{}"],
)
async def test_what_is_not_json_is_refused_by_what_it_claims_to_be(body: bytes) -> None:
    for content_type in (None, "application/json", "application/x+json;charset=utf-8"):
        with pytest.raises(Invalid, match="not JSON"):
            await read_object(make_request(body, content_type))
    with pytest.raises(UnsupportedMediaType, match="application/json"):
        await read_object(make_request(body, "application/x-www-form-urlencoded"))


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        (nested(MAX_DEPTH), True),
        (nested(MAX_DEPTH + 1), False),
        (b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}", True),
        (b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", False),
        (orjson.dumps({str(n): n for n in range(MAX_KEYS)}), True),
        (orjson.dumps({str(n): n for n in range(MAX_KEYS + 1)}), False),
        (orjson.dumps({"a": [{"b": 1}] * MAX_KEYS}), False),
        (b'{"a": ' + b"1" * MAX_DIGITS + b"}", True),
        (b'{"a": ' + b"1" * (MAX_DIGITS + 1) + b"}", False),
        (b'{"a": -0.' + b"1" * (MAX_DIGITS + 1) + b"}", False),
        (b'{"a": "' + b"1" * 5_000 + b'"}', True),
        (b'{"a": "\\"' + b"1" * 5_000 + b'\\\\"}', True),
        (b'{"' + b"1" * 5_000 + b'": [1, 2]}', True),
    ],
)
async def test_depth_keys_and_digits_are_limited(body: bytes, accepted: bool) -> None:
    if accepted:
        assert isinstance(await read_object(make_request(body)), dict)
    else:
        with pytest.raises(TooLarge):
            await read_object(make_request(body))


async def test_hostile_bodies_are_refused_in_little_time() -> None:
    megabyte = 1_000_000
    for body in (
        b"[" * megabyte,
        b'{"a":' * (megabyte // 5),
        b"1" * megabyte,
        b'{"a": ' + b"9" * megabyte + b"}",
        b'\\"' * (megabyte // 2) + b"1" * 200,
        b'"' * megabyte + b"1" * 200,
        b"[" + b"{}," * (megabyte // 3) + b"{}]",
        orjson.dumps({"a": [{"b": 1}] * 100_000}),
    ):
        before = time.process_time()
        with pytest.raises(MachinaError):
            await read_object(make_request(body))
        assert time.process_time() - before < 1


@pytest.fixture
async def small(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Api]:
    settings = make_settings(tmp_path, redis_server.url, max_body_bytes=2_000)
    async with running_api(settings) as api:
        yield api


async def test_a_body_beyond_the_limit_is_413_however_it_is_sent(small: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        sent = 0
        while sent < 1_000_000:
            yield b" " * 1_000
            sent += 1_000
        raise AssertionError("the whole body was read")

    async with small.calls(small.client) as calls:
        whole = await calls.post("/agent/executor/hello", content=b" " * 2_001)
        body = assert_problem(whole, 413, "body_too_large")
        assert "2000 bytes" in body["detail"]
        assert whole.headers["connection"] == "close"
        chunked = await calls.post("/agent/executor/hello", content=endless())
        assert_problem(chunked, 413, "body_too_large")
        fitting = await calls.post("/execution/agent-search", content=b"{}" + b" " * 1_998)
        assert fitting.status_code == 200


async def test_a_refused_body_starts_nothing(api: Api, client: httpx.AsyncClient) -> None:
    for content in (b"[]", b"{", nested(100)):
        answer = await client.post("/agent/stream/hello", content=content)
        assert answer.status_code in (413, 422)
        assert answer.json()["status"] == "error"
    assert await api.resources.attempts.records.count({}) == 0
    assert api.admission.gate.active == 0
