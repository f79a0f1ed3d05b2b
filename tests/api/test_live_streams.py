"""Streams over real sockets: delivery, leaving, resetting, not reading, draining, resuming."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from structlog.testing import capture_logs

from machina.breaker import State
from machina.events import Event
from machina.runs.run import Outcome, RunStatus
from tests.api.harness import (
    HELLO,
    Api,
    Hand,
    ids,
    lines,
    make_settings,
    next_hand,
    running_api,
    serving,
)
from tests.running import eventually
from tests.services import RedisServer


@dataclass
class Line:
    """An HTTP client down at the socket: reads when told, leaves as told."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> str:
        """The status line and headers."""
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def chunk(self) -> bytes:
        """The next chunk of the body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def rest(self) -> bytes:
        """The body to its end."""
        body = b""
        while chunk := await self.chunk():
            body += chunk
        return body

    def stop_reading(self) -> None:
        """Lets the buffers in between fill up."""
        cast(asyncio.Transport, self.writer.transport).pause_reading()

    def go_on_reading(self) -> None:
        """Reads again."""
        cast(asyncio.Transport, self.writer.transport).resume_reading()

    def leave(self) -> None:
        """Closes properly."""
        self.writer.close()

    def reset(self) -> None:
        """Closes with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Served:
    """An API process on a socket."""

    api: Api
    url: str
    lines: list[Line] = field(default_factory=list)

    async def dial(
        self, path: str, *, method: str = "POST", body: Any = HELLO, headers: str = ""
    ) -> Line:
        """Sends a request by hand."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 22)
        content = b"" if method == "GET" else json.dumps(body).encode()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Api-Token: {self.api.client}\r\n{headers}"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        self.lines.append(Line(reader, writer))
        return self.lines[-1]

    async def hang_up(self) -> None:
        """Closes what is open still."""
        for line in self.lines:
            line.leave()
            with suppress(ConnectionError):
                await line.writer.wait_closed()

    async def start(self, body: Any = HELLO, headers: str = "") -> tuple[Line, Hand]:
        """A started stream and the hand that plays its worker, after the first event."""
        line = await self.dial("/agent/stream/hello", body=body, headers=headers)
        hand = await next_hand(self.api.resources)
        await line.head()
        await hand.start()
        assert b'"type":"start"' in await line.chunk()
        return line, hand

    async def settled(self) -> None:
        """Waits until no request holds anything."""
        admission = self.api.admission
        await eventually(lambda: (admission.gate.active, admission.viewers) == (0, 0))
        await eventually(lambda: not admission.closing and len(self.api.streams) == 0)
        await eventually(lambda: self.api.resources.reader.open_streams == 0)


@asynccontextmanager
async def served_with(directory: Path, redis: RedisServer, **changes: Any) -> AsyncIterator[Served]:
    settings = make_settings(directory, redis.url, **changes)
    async with running_api(settings) as api, serving(api) as url:
        served = Served(api, url)
        try:
            yield served
        finally:
            await served.hang_up()


@pytest.fixture
async def served(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Served]:
    async with served_with(tmp_path, redis_server) as served:
        yield served


async def test_events_arrive_as_they_are_said_and_the_response_ends_with_done(
    served: Served,
) -> None:
    line, hand = await served.start()
    await hand.text("Hel")
    assert b'"content":"Hel"' in await line.chunk()
    await hand.text("lo")
    assert b'"content":"lo"' in await line.chunk()
    await hand.finish()
    async with asyncio.timeout(1):
        body = await line.rest()
    assert lines(body)[-1]["type"] == "done"
    line.leave()
    await served.settled()


async def test_a_client_that_leaves_does_not_stop_the_run_and_its_permit_is_free_at_once(
    served: Served,
) -> None:
    for leave in (Line.leave, Line.reset):
        line, hand = await served.start()
        assert served.api.admission.gate.active == 1
        leave(line)
        async with asyncio.timeout(3):  # a heartbeat would come after ten
            await served.settled()
        await hand.text("still here")
        run = await hand.finish()
        assert (run.status, run.cancel_requested) == (RunStatus.EXECUTED, False)


async def test_a_client_that_comes_back_has_missed_nothing(served: Served) -> None:
    line, hand = await served.start()
    path = f"/execution/agent-run/{hand.run.id}/stream"
    line.reset()
    await hand.text("one ", "two ")
    back = await served.dial(path, method="GET", headers="Last-Event-ID: 1-1\r\n")
    await back.head()
    assert ids(await back.chunk()) == ["1-2", "1-3"]
    await hand.text("three")
    assert ids(await back.chunk()) == ["1-4"]
    await hand.finish()
    assert lines(await back.chunk())[-1]["type"] == "done"
    assert await back.chunk() == b""
    back.leave()
    await served.settled()


async def test_two_viewers_see_the_same_bytes_live(served: Served) -> None:
    line, hand = await served.start()
    path = f"/execution/agent-run/{hand.run.id}/stream"
    async with httpx.AsyncClient(headers={"X-Api-Token": served.api.client}) as calls:
        viewers = [asyncio.create_task(calls.get(served.url + path)) for _ in range(3)]
        await eventually(lambda: served.api.admission.viewers == 4)
        await hand.text(*(f"word {n} " for n in range(50)))
        await hand.finish()
        bodies = {(await viewer).content for viewer in viewers}
    (body,) = bodies
    assert ids(body) == [f"1-{seq}" for seq in range(1, 54)]
    line.leave()


async def test_the_starters_disconnect_cancels_the_run_when_it_asked_for_that(
    served: Served,
) -> None:
    line, hand = await served.start(HELLO | {"on_disconnect": "cancel"})
    records = served.api.resources.attempts.records
    viewer = await served.dial(f"/execution/agent-run/{hand.run.id}/stream", method="GET")
    await viewer.head()
    viewer.reset()  # only the starter's own leaving counts
    await eventually(lambda: served.api.admission.viewers == 1)
    run = await records.get(hand.run.id)
    assert run is not None
    assert not run.cancel_requested
    line.leave()
    async with asyncio.timeout(2):
        run = await served.api.resources.runs.wait(hand.run, 0.05)
        while not run.cancel_requested:
            run = await served.api.resources.runs.wait(hand.run, 0.05)
    await hand.finish(Outcome(RunStatus.CANCELLED))


async def test_leaving_after_the_end_cancels_nothing(served: Served) -> None:
    line, hand = await served.start(HELLO | {"on_disconnect": "cancel"})
    await hand.finish()
    await line.rest()
    line.leave()
    await served.settled()
    run = await served.api.resources.attempts.records.get(hand.run.id)
    assert run is not None
    assert (run.status, run.cancel_requested) == (RunStatus.EXECUTED, False)


@pytest.mark.parametrize(("accept", "beat"), [("*/*", b"\n"), ("text/event-stream", b":\n\n")])
async def test_heartbeats_keep_a_silent_stream_alive(
    tmp_path: Path, redis_server: RedisServer, accept: str, beat: bytes
) -> None:
    async with served_with(tmp_path, redis_server, heartbeat_seconds=0.05) as served:
        line = await served.dial("/agent/stream/hello", headers=f"Accept: {accept}\r\n")
        await line.head()
        assert [await line.chunk() for _ in range(3)] == [beat] * 3
        line.leave()
        await served.settled()


async def test_a_client_that_stops_reading_is_cut_off_and_frees_its_place(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with served_with(tmp_path, redis_server, send_timeout_seconds=0.4) as served:
        line, hand = await served.start()
        line.stop_reading()
        large = [Event("content", "x" * 60_000, {"partial": True}) for _ in range(200)]
        await hand.say(*large)  # more than all the buffers in between hold
        async with asyncio.timeout(5):
            await served.settled()
        line.go_on_reading()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await line.rest()
        run = await hand.finish()
        assert run.status is RunStatus.EXECUTED


@pytest.fixture
async def draining(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Served]:
    async with served_with(tmp_path, redis_server, drain_seconds=1.5) as served:
        yield served


async def test_a_drain_ends_open_streams_at_an_event_boundary_and_cancels_no_run(
    draining: Served,
) -> None:
    served = draining
    sse = {"headers": "Accept: text/event-stream\r\n"}
    ndjson_line, first = await served.start(HELLO | {"on_disconnect": "cancel"})
    sse_line, second = await served.start(HELLO | {"on_disconnect": "cancel"}, **sse)
    served.api.resources.draining = True
    await first.text("while draining")
    assert b"while draining" in await ndjson_line.chunk()
    async with asyncio.timeout(5):
        assert await ndjson_line.chunk() == b""
        hint = await sse_line.chunk()
        assert hint.startswith(b"retry: ")
        assert 500 <= int(hint.removeprefix(b"retry: ")) < 2_500
        assert await sse_line.chunk() == b""
    refused = await served.dial("/agent/stream/hello")
    assert " 503 " in (await refused.head()).split("\r\n")[0]
    await served.settled()
    for hand in (first, second):
        run = await hand.finish()
        assert (run.status, run.cancel_requested) == (RunStatus.EXECUTED, False)


async def test_a_connection_of_the_greatest_age_is_ended_to_be_resumed(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with served_with(tmp_path, redis_server, max_connection_seconds=0.3) as served:
        line, hand = await served.start()
        async with asyncio.timeout(4):
            assert await line.chunk() == b""
        line.leave()
        await hand.finish()


async def test_the_permit_is_held_to_the_last_byte_and_the_next_stream_is_429(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with served_with(tmp_path, redis_server, max_concurrent_streams=1) as served:
        line, hand = await served.start()
        refused = await served.dial("/agent/stream/hello")
        head = await refused.head()
        assert " 429 " in head.split("\r\n")[0]
        assert "retry-after: " in head.lower()
        refused.leave()
        await hand.finish()
        await line.rest()
        await served.settled()
        again, other = await served.start()
        await other.finish()
        again.leave()
        line.leave()


async def test_a_probe_closes_the_breaker_when_its_first_event_has_come(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    small = {"circuit_breaker_threshold": 1, "breaker_cool_down_seconds": 0.2}
    async with served_with(tmp_path, redis_server, **small) as served:
        breaker = served.api.admission.breaker
        breaker.failure(await breaker.admit())
        await eventually(lambda: breaker.state is State.HALF_OPEN)
        probe = await served.dial("/agent/stream/hello")
        hand = await next_hand(served.api.resources)
        await probe.head()
        refused = await served.dial("/agent/stream/hello")
        assert " 503 " in (await refused.head()).split("\r\n")[0]
        assert breaker.state is State.HALF_OPEN
        await hand.start()
        await eventually(lambda: breaker.state is State.CLOSED)
        await hand.finish()


async def test_nothing_leaks_when_clients_leave_in_every_way_at_every_moment(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    dice = random.Random(3)
    async with served_with(tmp_path, redis_server, max_concurrent_streams=40) as served:

        async def come_and_go() -> None:
            line = await served.dial("/agent/stream/hello")
            if dice.random() < 0.7:
                await line.head()
            await asyncio.sleep(dice.random() * 0.02)
            (line.leave if dice.random() < 0.5 else line.reset)()

        for _ in range(5):
            await asyncio.gather(*(come_and_go() for _ in range(30)))
        await served.settled()
        gate = served.api.admission.gate
        assert len([await gate.acquire() for _ in range(40)]) == gate.active


async def test_a_client_that_leaves_within_its_body_is_no_defect(served: Served) -> None:
    with capture_logs() as logs:
        line = await served.dial("/agent/stream/hello", headers="Content-Length: 500\r\nX: ")
        await asyncio.sleep(0.05)
        line.leave()
        await eventually(lambda: any(entry["event"] == "request.served" for entry in logs))
    assert [entry["event"] for entry in logs] == ["request.abandoned", "request.served"]
    assert await served.api.resources.attempts.records.count({}) == 0


async def test_pipelined_and_malformed_requests_do_not_disturb_a_stream(served: Served) -> None:
    line, hand = await served.start()
    line.writer.write(b"GET /system/liveness HTTP/1.1\r\nHost: x\r\n\r\n")
    await hand.text("undisturbed")
    assert b"undisturbed" in await line.chunk()
    await hand.finish()
    await line.rest()
    assert "200 OK" in await line.head()
    line.leave()
    await served.settled()
