"""The exact bytes each encoder makes of a recorded log."""

from __future__ import annotations

import json

import httpx
import pytest
from sse_starlette.event import ServerSentEvent

from machina.events import EVENT_TYPES, Entry, Event, encode
from machina.ids import EventId
from machina.wire import Encoder, NDJSONEncoder, SSEEncoder


def entry(attempt: int, seq: int, event: Event) -> Entry:
    id = EventId(attempt, seq)
    return Entry(id, encode(id, event))


LOG = [
    entry(1, 1, Event("start", "", {"agent_name": "hello", "task_id": "a1"})),
    entry(1, 2, Event("content", "Grüße\u2028\n", {"partial": True})),
    entry(2, 1, Event("restart", "", {"attempt": 2, "content": ""})),
    entry(2, 2, Event("done", "", {"status": "executed", "content": "hi"})),
]

NDJSON = rb"""
{"id":"1-1","type":"start","content":"","metadata":{"agent_name":"hello","task_id":"a1"}}
{"id":"1-2","type":"content","content":"Gr\u00fc\u00dfe\u2028\n","metadata":{"partial":true}}
{"id":"2-1","type":"restart","content":"","metadata":{"attempt":2,"content":""}}
{"id":"2-2","type":"done","content":"","metadata":{"status":"executed","content":"hi"}}
""".lstrip()

SSE = rb"""
id: 1-1
event: start
data: {"id":"1-1","type":"start","content":"","metadata":{"agent_name":"hello","task_id":"a1"}}

id: 1-2
event: content
data: {"id":"1-2","type":"content","content":"Gr\u00fc\u00dfe\u2028\n","metadata":{"partial":true}}

id: 2-1
event: restart
data: {"id":"2-1","type":"restart","content":"","metadata":{"attempt":2,"content":""}}

id: 2-2
event: done
data: {"id":"2-2","type":"done","content":"","metadata":{"status":"executed","content":"hi"}}

""".lstrip()


@pytest.mark.parametrize(("encoder", "golden"), [(NDJSONEncoder(), NDJSON), (SSEEncoder(), SSE)])
def test_a_recorded_log_becomes_exactly_these_bytes(encoder: Encoder, golden: bytes) -> None:
    assert b"".join(encoder.encode(entry) for entry in LOG) == golden


def test_media_types_heartbeats_and_closing_bytes_are_exactly_these() -> None:
    ndjson, sse = NDJSONEncoder(), SSEEncoder()
    assert (ndjson.content_type, sse.content_type) == ("application/x-ndjson", "text/event-stream")
    assert (ndjson.heartbeat(), sse.heartbeat()) == (b"\n", b":\n\n")
    assert (ndjson.close(), sse.close()) == (b"", b"")
    assert (ndjson.close(1_500), sse.close(1_500)) == (b"", b"retry: 1500\n\n")


def test_sse_frames_are_those_of_an_independent_implementation() -> None:
    for one in LOG:
        reference = ServerSentEvent(one.data.decode(), event=one.type, id=str(one.id), sep="\n")
        assert SSEEncoder().encode(one) == reference.encode()
    assert SSEEncoder().close(1_500) == ServerSentEvent(retry=1_500, sep="\n").encode()


@pytest.mark.parametrize("hostile", ["\n\ndata: x", "\r\n\r\nevent: done", "\x00", "\u2029id: 9-9"])
@pytest.mark.parametrize("type", EVENT_TYPES)
def test_nothing_an_event_says_breaks_out_of_its_frame(type: str, hostile: str) -> None:
    event = Event(type, hostile, {hostile: hostile})  # type: ignore[arg-type]  # parametrized text
    encoded = SSEEncoder().encode(entry(1, 7, event))
    id, name, data, *rest = encoded.decode("ascii").split("\n")
    assert (id, name, rest) == ("id: 1-7", f"event: {type}", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {
        "id": "1-7",
        "type": type,
        "content": hostile,
        "metadata": {hostile: hostile},
    }


def test_an_ndjson_line_stays_one_line_for_readers_that_split_at_any_unicode_line_end() -> None:
    body = b"".join(NDJSONEncoder().encode(entry) for entry in LOG) + NDJSONEncoder().heartbeat()
    lines = list(httpx.Response(200, content=body).iter_lines())
    assert [json.loads(line)["id"] for line in lines if line] == ["1-1", "1-2", "2-1", "2-2"]
