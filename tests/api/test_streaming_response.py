"""The streaming response by itself: writes, heartbeats and every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message
from structlog.testing import capture_logs

from machina.api.open_streams import Ending, OpenStreams, StreamLimits
from machina.api.streaming import MAX_WRITE, RunStream
from machina.errors import LogDown, TooLarge
from machina.events import Entry, Event, EventType, encode
from machina.ids import EventId
from machina.wire import NDJSONEncoder, SSEEncoder
from tests.running import eventually, running

LONG = 3_600.0


def entry(seq: int, type: EventType = "content", text: str = "") -> Entry:
    id = EventId(1, seq)
    return Entry(id, encode(id, Event(type, text)))


class FedView:
    """A view that is fed by the test: batches, or errors to raise."""

    def __init__(self, *batches: list[Entry] | Exception) -> None:
        self.batches: asyncio.Queue[list[Entry] | Exception] = asyncio.Queue()
        for batch in batches:
            self.batches.put_nowait(batch)

    async def next(self, timeout: float) -> list[Entry]:
        try:
            async with asyncio.timeout(timeout):
                batch = await self.batches.get()
        except TimeoutError:
            return []
        if isinstance(batch, Exception):
            raise batch
        return batch


class Wire:
    """The server's side of a connection: keeps what was written, blocks and disconnects at will."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.open_for_writes = asyncio.Event()
        self.open_for_writes.set()
        self.gone = asyncio.Event()
        self.aborted = asyncio.Event()

    async def send(self, message: Message) -> None:
        await self.open_for_writes.wait()  # as a server: waits first, writes then
        self.messages.append(message)

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.messages if m["type"] == "http.response.body"]

    @property
    def is_complete(self) -> bool:
        return not self.messages[-1].get("more_body", True)

    async def serve(self, response: RunStream) -> None:
        scope = {"type": "http", "machina.abort": self.aborted.set}
        await response(scope, self.receive, self.send)


class Drain:
    def __init__(self) -> None:
        self.draining = False

    def __call__(self) -> bool:
        return self.draining


@asynccontextmanager
async def watched(
    *, heartbeat: float = LONG, send: float = LONG, drain: float = 0.0, age: float | None = None
) -> AsyncIterator[tuple[OpenStreams, Drain]]:
    state = Drain()
    limits = StreamLimits(heartbeat=heartbeat, send=send, drain=drain, age=age)
    streams = OpenStreams(limits, is_draining=state, random=lambda: 0.5)
    async with running(streams.run):
        yield streams, state
    assert len(streams) == 0


def respond(
    view: FedView,
    streams: OpenStreams,
    encoder: Any = None,
    *,
    on_first: Callable[[], None] | None = None,
    on_gone: Callable[[], Coroutine[Any, Any, Any]] | None = None,
) -> RunStream:
    return RunStream(
        view,
        encoder or NDJSONEncoder(),
        streams,
        headers={"X-Run-Id": "r"},
        on_first=on_first,
        on_gone=on_gone,
    )


async def test_what_is_waiting_goes_out_in_one_write_and_done_ends_the_response() -> None:
    firsts: list[None] = []
    async with watched() as (streams, _):
        wire = Wire()
        view = FedView([entry(1), entry(2)], [entry(3), entry(4, "done")])
        await wire.serve(respond(view, streams, on_first=lambda: firsts.append(None)))
    start, *_ = wire.messages
    assert (start["type"], start["status"]) == ("http.response.start", 200)
    assert (b"content-type", b"application/x-ndjson") in start["headers"]
    assert (b"x-run-id", b"r") in start["headers"]
    pairs = ([entry(1), entry(2)], [entry(3), entry(4, "done")])
    assert wire.bodies == [*(b"".join(e.data + b"\n" for e in pair) for pair in pairs), b""]
    assert wire.is_complete
    assert len(firsts) == 1


async def test_no_write_exceeds_its_bound_but_one_that_holds_a_single_larger_event() -> None:
    small = [entry(seq, text="x" * 20_000) for seq in range(1, 8)]
    large = entry(8, text="y" * 200_000)
    async with watched() as (streams, _):
        wire = Wire()
        await wire.serve(respond(FedView([*small, large, entry(9), entry(10, "done")]), streams))
    sizes = [len(body) for body in wire.bodies]
    assert len([size for size in sizes if size > MAX_WRITE]) == 1
    assert max(sizes) == len(large.data) + 1
    assert all(body.endswith(b"\n") for body in wire.bodies[:-1]), "writes end where events end"
    everything = [*small, large, entry(9), entry(10, "done")]
    assert b"".join(wire.bodies) == b"".join(e.data + b"\n" for e in everything)


@pytest.mark.parametrize(("encoder", "beat"), [(NDJSONEncoder(), b"\n"), (SSEEncoder(), b":\n\n")])
async def test_silence_is_filled_with_heartbeats(encoder: Any, beat: bytes) -> None:
    async with watched(heartbeat=0.01) as (streams, _):
        wire, view = Wire(), FedView()
        task = asyncio.create_task(wire.serve(respond(view, streams, encoder)))
        await eventually(lambda: wire.bodies[:3] == [beat] * 3)
        view.batches.put_nowait([entry(1, "done")])
        await task
    assert wire.is_complete


async def test_a_client_that_leaves_in_silence_is_noticed_at_once() -> None:
    async with watched() as (streams, _):
        wire = Wire()
        task = asyncio.create_task(wire.serve(respond(FedView([entry(1)]), streams)))
        await eventually(lambda: len(wire.bodies) == 1)
        wire.gone.set()
        await asyncio.wait_for(task, 3)
    assert not wire.is_complete
    assert not wire.aborted.is_set()


async def test_a_client_that_sends_a_body_without_end_is_let_go() -> None:
    async def receive() -> Message:
        raise TooLarge

    async with watched() as (streams, _):
        wire = Wire()
        wire.receive = receive  # type: ignore[method-assign]  # what the body's limit does
        with capture_logs() as logs:
            await wire.serve(respond(FedView(), streams))
    assert logs[0]["event"] == "stream.refused_body"
    assert not wire.is_complete


async def test_the_starters_disconnect_runs_what_follows_it_to_the_end() -> None:
    cancelled = asyncio.Event()

    async def cancel() -> None:
        await asyncio.sleep(0.01)
        cancelled.set()

    async with watched() as (streams, _):
        wire = Wire()
        task = asyncio.create_task(wire.serve(respond(FedView(), streams, on_gone=cancel)))
        await eventually(lambda: len(streams) == 1)
        wire.gone.set()
        await task
        assert not cancelled.is_set()
        await streams.settle(1)
        assert cancelled.is_set()


async def test_a_failure_after_a_disconnect_is_logged() -> None:
    async def broken() -> None:
        raise RuntimeError("cannot cancel")

    async with watched() as (streams, _):
        wire = Wire()
        wire.gone.set()
        with capture_logs() as logs:
            await wire.serve(respond(FedView(), streams, on_gone=broken))
            await streams.settle(1)
            await asyncio.sleep(0)
    assert "stream.aftermath_failed" in [line["event"] for line in logs]


@pytest.mark.parametrize("how", ["done", "drain", "slow", "gone while draining", "broken"])
async def test_only_the_clients_own_disconnect_before_the_end_cancels(how: str) -> None:
    cancels: list[str] = []

    async def cancel() -> None:
        cancels.append(how)

    async with watched(send=0.05) as (streams, drain):
        wire, view = Wire(), FedView([entry(1)])
        task = asyncio.create_task(wire.serve(respond(view, streams, on_gone=cancel)))
        await eventually(lambda: len(wire.bodies) == 1)
        if how == "done":
            view.batches.put_nowait([entry(2, "done")])
        elif how == "drain":
            drain.draining = True
        elif how == "slow":
            wire.open_for_writes.clear()
            view.batches.put_nowait([entry(2)])
        elif how == "broken":
            view.batches.put_nowait(RuntimeError("a defect"))
        else:
            drain.draining = True
            wire.gone.set()
        with capture_logs():
            await task
        wire.gone.set()
        await streams.settle(1)
    assert cancels == []


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with watched(send=0.1) as (streams, _):
        wire, view = Wire(), FedView([entry(1)])
        task = asyncio.create_task(wire.serve(respond(view, streams)))
        await eventually(lambda: len(wire.bodies) == 1)
        wire.open_for_writes.clear()
        view.batches.put_nowait([entry(2)])
        await asyncio.wait_for(task, 2)
    assert wire.aborted.is_set()
    assert not wire.is_complete


async def test_a_client_that_reads_in_time_is_not_cut_off() -> None:
    async with watched(send=0.8) as (streams, _):
        wire, view = Wire(), FedView()
        task = asyncio.create_task(wire.serve(respond(view, streams)))
        for seq in range(1, 6):  # longer than the limit in all, each write well within it
            wire.open_for_writes.clear()
            view.batches.put_nowait([entry(seq)])
            await asyncio.sleep(0.2)
            wire.open_for_writes.set()
        view.batches.put_nowait([entry(6, "done")])
        await task
    assert wire.is_complete
    assert not wire.aborted.is_set()


async def test_a_drained_stream_ends_at_an_event_boundary_with_a_hint_in_sse() -> None:
    async with watched(drain=0.1) as (streams, drain):
        wires = {"ndjson": Wire(), "sse": Wire()}
        encoders = {"ndjson": NDJSONEncoder(), "sse": SSEEncoder()}
        tasks = [
            asyncio.create_task(wire.serve(respond(FedView([entry(1)]), streams, encoders[format])))
            for format, wire in wires.items()
        ]
        await eventually(lambda: all(len(wire.bodies) == 1 for wire in wires.values()))
        drain.draining = True
        await asyncio.wait_for(asyncio.gather(*tasks), 2)
    assert wires["sse"].bodies == [SSEEncoder().encode(entry(1)), b"retry: 1500\n\n"]
    assert wires["ndjson"].bodies == [entry(1).data + b"\n", b""]
    assert all(wire.is_complete and not wire.aborted.is_set() for wire in wires.values())


async def test_a_stream_that_finishes_while_draining_ends_with_done() -> None:
    async with watched(drain=LONG) as (streams, drain):
        wire, view = Wire(), FedView([entry(1)])
        task = asyncio.create_task(wire.serve(respond(view, streams, SSEEncoder())))
        await eventually(lambda: len(wire.bodies) == 1)
        drain.draining = True
        await asyncio.sleep(0.15)
        view.batches.put_nowait([entry(2, "done")])
        await asyncio.wait_for(task, 3)
    assert wire.bodies[1:] == [SSEEncoder().encode(entry(2, "done")), b""]


async def test_a_stream_that_slips_into_the_drain_is_ended_as_well() -> None:
    async with watched() as (streams, drain):
        drain.draining = True
        await asyncio.sleep(0.25)
        wire = Wire()
        await asyncio.wait_for(wire.serve(respond(FedView(), streams)), 3)
    assert wire.is_complete


async def test_a_drained_client_that_does_not_read_is_cut_off_after_a_moment() -> None:
    async with watched() as (streams, drain):
        wire, view = Wire(), FedView([entry(1)])
        task = asyncio.create_task(wire.serve(respond(view, streams)))
        await eventually(lambda: len(wire.bodies) == 1)
        wire.open_for_writes.clear()
        drain.draining = True
        await asyncio.wait_for(task, 3)
    assert wire.aborted.is_set()


async def test_a_connection_that_is_too_old_is_ended_to_be_resumed() -> None:
    async with watched(age=0.1) as (streams, _):
        wire = Wire()
        await asyncio.wait_for(wire.serve(respond(FedView([entry(1)]), streams, SSEEncoder())), 2)
    assert wire.bodies[-1] == b"retry: 1500\n\n"


async def test_a_view_that_is_unavailable_is_waited_for() -> None:
    async with watched() as (streams, _):
        wire, view = Wire(), FedView([entry(1)], LogDown("away"), [entry(2, "done")])
        with capture_logs() as logs:
            await wire.serve(respond(view, streams))
    assert wire.bodies == [entry(1).data + b"\n", b"\n", entry(2, "done").data + b"\n", b""]
    assert [line["event"] for line in logs].count("stream.degraded") == 1


@pytest.mark.parametrize("error", [RuntimeError("a defect"), TimeoutError("inside")])
async def test_a_defect_ends_the_stream_so_that_the_client_can_come_back(error: Exception) -> None:
    async with watched() as (streams, _):
        wire = Wire()
        with capture_logs() as logs:
            await wire.serve(respond(FedView([entry(1)], error), streams, SSEEncoder()))
    assert wire.bodies[-1] == b"retry: 1500\n\n"
    assert wire.is_complete
    assert {"stream.broken", "stream.ended"} <= {line["event"] for line in logs}


async def test_the_first_reason_to_end_counts_when_two_come_at_once() -> None:
    cancels: list[None] = []

    async def cancel() -> None:
        cancels.append(None)

    async with watched() as (streams, _):
        wire = Wire()
        response = respond(FedView(), streams, SSEEncoder(), on_gone=cancel)
        task = asyncio.create_task(wire.serve(response))
        await eventually(lambda: len(wire.messages) == 1)
        response.end(Ending.DRAIN)
        response.end(Ending.GONE)
        await task
        response.end(Ending.GONE)  # too late to matter
        await streams.settle(1)
    assert wire.bodies == [b"retry: 1500\n\n"]
    assert cancels == []


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    async with watched() as (streams, _):
        wire = Wire()
        task = asyncio.create_task(wire.serve(respond(FedView(), streams)))
        await eventually(lambda: len(streams) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(streams) == 0
        assert len(asyncio.all_tasks()) == 2, "this test and the register's loop"
