"""The reader on a healthy server: catch-up, tail, sharing, bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from machina.eventlog.clients import commands_of
from machina.eventlog.keys import make_log_keys
from machina.eventlog.reader import EventLogReader, LogState, Subscription
from machina.eventlog.script import AppendScript, Batch
from machina.eventlog.tail import RING_BYTES, RING_ENTRIES, TAKE_BYTES, TAKE_ENTRIES
from machina.events import Entry, Event, encode
from machina.ids import BEGINNING, EventId, RunId
from tests.running import eventually, running
from tests.services import RedisServer

KEYS = make_log_keys("test")
RUN = RunId("65f0000000000000000000a1")


class Log:
    """Appends to one run through the script, with the bell."""

    def __init__(self, client: Redis, run: RunId = RUN) -> None:
        self.run = run
        self.said: list[Entry] = []
        self._script = AppendScript(client, KEYS)

    async def say(self, count: int, *, attempt: int = 1, size: int = 20, end: bool = False) -> None:
        last = self.said[-1].id if self.said else BEGINNING
        first = last.seq + 1 if last.attempt == attempt else 1
        entries = []
        for seq in range(first, first + count):
            event = Event("done" if end and seq == first + count - 1 else "content", "x" * size)
            entries.append(Entry(EventId(attempt, seq), encode(EventId(attempt, seq), event)))
        lines = [entry.data for entry in entries]
        (verdict,) = await self._script.commit(
            [Batch(self.run, attempt, first, lines, end, False, 600_000, 60_000)]
        )
        assert verdict.answer.is_success
        self.said += entries


@pytest.fixture
async def reader(log_client: Redis) -> AsyncIterator[EventLogReader]:
    """A running reader that never sweeps on its own, so that bells must do."""
    reader = EventLogReader(log_client, KEYS, sweep_seconds=1_000)
    async with running(reader.run):
        yield reader


@pytest.fixture
def log(log_client: Redis) -> Log:
    return Log(log_client)


async def read(subscription: Subscription, count: int, *, seconds: float = 5) -> list[Entry]:
    """The next `count` entries."""
    got: list[Entry] = []
    async with asyncio.timeout(seconds):
        while len(got) < count:
            got += await subscription.next(1)
    assert len(got) == count
    return got


async def test_a_viewer_reads_what_was_said_and_then_what_is_being_said(
    reader: EventLogReader, log: Log
) -> None:
    await log.say(700)
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        assert await read(viewer, 700) == log.said
        for _ in range(20):
            await log.say(2)
            assert await read(viewer, 2) == log.said[-2:]
        await log.say(1, end=True)
        (end,) = await read(viewer, 1)
        assert end.is_terminal
        assert viewer.cursor == end.id
        assert await viewer.next(0.01) == []


async def test_a_viewer_may_come_before_the_first_event(reader: EventLogReader, log: Log) -> None:
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        assert await viewer.next(0.02) == []
        assert not viewer.disturbed
        waiting = asyncio.create_task(viewer.next(5))
        await asyncio.sleep(0.02)
        await log.say(3)
        assert await waiting == log.said


async def test_a_resume_at_any_event_gives_exactly_the_rest(
    reader: EventLogReader, log: Log
) -> None:
    await log.say(6)
    await log.say(4, attempt=2, end=True)
    for cut in range(11):
        after = log.said[cut - 1].id if cut else BEGINNING
        async with reader.subscribe(RUN, after=after) as viewer:
            assert await read(viewer, 10 - cut) == log.said[cut:]


async def test_ids_go_on_across_attempts(reader: EventLogReader, log: Log) -> None:
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        await log.say(57)
        assert await read(viewer, 57) == log.said
        await log.say(2, attempt=2)
        assert [str(entry.id) for entry in await read(viewer, 2)] == ["2-1", "2-2"]
    async with reader.subscribe(RUN, after=EventId(1, 999)) as late:
        assert [str(entry.id) for entry in await read(late, 2)] == ["2-1", "2-2"]


async def test_all_viewers_of_a_run_get_the_same_bytes(reader: EventLogReader, log: Log) -> None:
    async with AsyncExitStack() as stack:
        await log.say(50)
        viewers = [
            await stack.enter_async_context(reader.subscribe(RUN, after=EventId(1, start)))
            for start in (0, 50, 7, 33, 0)
        ]
        reading = [
            asyncio.create_task(read(viewer, 250 - start))
            for viewer, start in zip(viewers, (0, 50, 7, 33, 0), strict=True)
        ]
        for _ in range(200):
            await log.say(1)
        views = await asyncio.gather(*reading)
        for view, start in zip(views, (0, 50, 7, 33, 0), strict=True):
            assert view == log.said[start:]
        assert reader.open_streams == 1
        assert reader.viewers == 5
    assert reader.open_streams == 0


async def test_a_quick_viewer_is_not_held_up_by_one_that_replays(
    reader: EventLogReader, log: Log
) -> None:
    await log.say(900)
    async with (
        reader.subscribe(RUN, after=BEGINNING) as slow,
        reader.subscribe(RUN, after=EventId(1, 900)) as quick,
    ):
        got = await slow.next(1)
        waiting = asyncio.create_task(quick.next(5))
        await asyncio.sleep(0.02)
        await log.say(1)
        assert await waiting == log.said[900:]
        assert got + await read(slow, 901 - len(got)) == log.said


async def test_no_command_is_sent_for_a_viewer_whose_entries_are_in_the_ring(
    log_client: Redis, reader: EventLogReader, log: Log
) -> None:
    async with (
        reader.subscribe(RUN, after=BEGINNING) as first,
        reader.subscribe(RUN, after=BEGINNING) as second,
    ):
        waiting = asyncio.create_task(second.next(5))
        await asyncio.sleep(0.01)
        await log.say(5)
        assert await waiting == log.said
        before = (await log_client.info("stats"))["total_commands_processed"]
        assert await first.next(0) == log.said
        after = (await log_client.info("stats"))["total_commands_processed"]
        assert after - before == 1, "only the question itself"


async def test_memory_is_bounded_when_a_viewer_is_slow(reader: EventLogReader, log: Log) -> None:
    async with (
        reader.subscribe(RUN, after=BEGINNING) as slow,
        reader.subscribe(RUN, after=BEGINNING) as quick,
    ):
        (tail,) = reader._tails.values()
        for _ in range(40):
            await log.say(10, size=10_000)
            await read(quick, 10)
            entries, size = tail.ring_size
            assert entries <= RING_ENTRIES
            assert size <= RING_BYTES
        assert log.said == await read(slow, 400)
        await log.say(1)
        assert await read(slow, 1) == await read(quick, 1)


async def test_the_tail_does_not_run_ahead_of_a_single_slow_viewer(
    reader: EventLogReader, log: Log
) -> None:
    async with reader.subscribe(RUN, after=BEGINNING) as slow:
        (tail,) = reader._tails.values()
        got: list[Entry] = []
        for _ in range(30):
            await log.say(20, size=2_000)
            got += await slow.next(1)
            assert tail.ring_size[1] <= 2 * TAKE_BYTES
        got += await read(slow, 600 - len(got))
        assert got == log.said
        assert tail.ring_size == (0, 0)


async def test_what_a_viewer_gets_at_once_is_bounded(reader: EventLogReader, log: Log) -> None:
    await log.say(1_500, size=1)
    for _ in range(10):
        await log.say(10, size=9_000)
    for _ in range(5):
        await log.say(1, size=700_000)
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        got: list[Entry] = []
        while len(got) < len(log.said):
            batch = await viewer.next(1)
            got += batch
            assert 1 <= len(batch) <= TAKE_ENTRIES
            assert len(batch) == 1 or sum(len(entry.data) for entry in batch) <= TAKE_BYTES
        assert got == log.said


async def test_the_number_of_connections_does_not_depend_on_the_number_of_viewers(
    redis_server: RedisServer, log_client: Redis, reader: EventLogReader
) -> None:
    def connections() -> int:
        with redis_server.connect() as outside:
            return len(outside.client_list()) - 1

    runs = [RunId(f"65f000000000000000{i:06x}") for i in range(250)]
    logs = [Log(log_client, run) for run in runs]
    async with AsyncExitStack() as stack:

        async def view(log: Log) -> list[Entry]:
            subscription = await stack.enter_async_context(
                reader.subscribe(log.run, after=BEGINNING)
            )
            return await read(subscription, 12)

        views = [asyncio.create_task(view(log)) for log in logs for _ in range(2)]
        await eventually(lambda: reader.viewers == 500)
        for log in logs:
            await log.say(10)
        during = await asyncio.to_thread(connections)
        for log in logs:
            await log.say(2, end=True)
        seen = await asyncio.gather(*views)
        assert seen == [log.said for log in logs for _ in range(2)]
        assert during <= 5
        assert await asyncio.to_thread(connections) <= 5


async def test_a_cancelled_wait_loses_nothing(reader: EventLogReader, log: Log) -> None:
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        got: list[Entry] = []
        for turn in range(40):
            waiting = asyncio.create_task(viewer.next(5))
            for _ in range(turn % 12):
                await asyncio.sleep(0)
            await log.say(1)
            waiting.cancel()
            (result,) = await asyncio.gather(waiting, return_exceptions=True)
            if isinstance(result, list):
                got += result
        got += await read(viewer, 40 - len(got))
        assert got == log.said


async def test_a_second_subscription_starts_afresh_when_the_first_was_closed(
    reader: EventLogReader, log: Log
) -> None:
    for _ in range(3):
        await log.say(3)
        async with reader.subscribe(RUN, after=BEGINNING) as viewer:
            assert await read(viewer, len(log.said)) == log.said


async def test_inspect_tells_what_is_there(
    log_client: Redis, reader: EventLogReader, log: Log
) -> None:
    assert await reader.inspect(RUN) == LogState(exists=False, top=None)
    await log.say(3, end=True)
    state = await reader.inspect(RUN)
    assert state == LogState(exists=True, top=log.said[-1])
    assert state.top is not None
    assert state.top.is_terminal
    await log_client.xdel(KEYS.events(RUN), "1-1", "1-2", "1-3")
    assert await reader.inspect(RUN) == LogState(exists=True, top=None)
    assert await reader.ping()


async def test_foreign_bells_are_ignored(
    log_client: Redis, reader: EventLogReader, log: Log
) -> None:
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        for noise in (b"", b"x", b"\xff" * 23, b"nonsense" * 30):
            await log_client.publish(KEYS.bells, noise)
        await log.say(1)
        assert await read(viewer, 1) == log.said


async def test_next_keeps_its_time_limit_when_nothing_is_said(reader: EventLogReader) -> None:
    loop = asyncio.get_running_loop()
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        began = loop.time()
        assert await viewer.next(0.05) == []
        assert 0.04 < loop.time() - began < 1
        assert await viewer.next(0) == []


@pytest.mark.parametrize("name", ["listen", "fetch", "sweep"])
async def test_run_raises_when_one_of_its_loops_dies_and_goes_on_when_run_again(
    log_client: Redis, log: Log, name: str
) -> None:
    reader = EventLogReader(log_client, KEYS, sweep_seconds=1_000)
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        task = asyncio.create_task(reader.run())
        await log.say(2)
        assert await read(viewer, 2) == log.said
        (loop_task,) = (t for t in asyncio.all_tasks() if t.get_name() == f"eventlog.{name}")
        loop_task.cancel()
        with pytest.raises(Exception, match=f"eventlog.{name}"):
            await task
        await log.say(2)
        assert await viewer.next(0.02) == []
        async with running(reader.run):
            assert await read(viewer, 2) == log.said[2:]
            await log.say(1)
            assert await read(viewer, 1) == log.said[4:]


async def test_an_unexpected_error_in_a_loop_reaches_the_owner(log_client: Redis, log: Log) -> None:
    reader = EventLogReader(log_client, KEYS, sweep_seconds=1_000)
    async with reader.subscribe(RUN, after=BEGINNING) as viewer:
        await log.say(1)
        commands = commands_of(log_client)
        execute = commands.execute

        def broken(*_: Any) -> Any:
            commands.execute = execute  # type: ignore[method-assign]  # once only
            raise ZeroDivisionError

        commands.execute = broken  # type: ignore[method-assign]  # a defect, injected
        waiting = asyncio.create_task(viewer.next(5))
        with pytest.raises(ZeroDivisionError):
            await reader.run()
        async with running(reader.run):
            assert await waiting == log.said
