"""The writer and its outbox on a healthy server: ids, batches, bounds, refusals, closing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from machina.errors import Fenced
from machina.eventlog.answers import (
    MAX_LINE_BYTES,
    Answer,
    AppendFenced,
    AppendRefused,
    EventTooLarge,
)
from machina.eventlog.clients import commands_of
from machina.eventlog.keys import make_log_keys
from machina.eventlog.outbox import CALL_BYTES, CALL_ENTRIES, RUN_BYTES
from machina.eventlog.writer import AttemptLog, EventLogWriter
from machina.events import Event, decode
from machina.ids import EventId, RunId
from tests.running import eventually, running

KEYS = make_log_keys("test")
RUN = RunId("65f0000000000000000000a1")
DONE = Event("done", "", {"status": "executed"})


def said(text: str) -> Event:
    return Event("content", text)


def make_writer(client: Redis, **options: Any) -> EventLogWriter:
    return EventLogWriter(
        client, KEYS, **({"outbox_bytes": 10_000_000, "outbox_seconds": 30} | options)
    )


def open_log(
    writer: EventLogWriter,
    run: RunId = RUN,
    attempt: int = 1,
    on_refused: Callable[[Answer], None] | None = None,
    *,
    repair: bool = False,
) -> AttemptLog:
    return writer.open(
        run,
        attempt,
        live_ttl_seconds=600,
        retention_seconds=60,
        on_refused=on_refused,
        repair=repair,
    )


@pytest.fixture
async def writer(log_client: Redis) -> AsyncIterator[EventLogWriter]:
    writer = make_writer(log_client)
    async with running(writer.run):
        yield writer


class Calls:
    """Counts the calls of the script and what they carried, by looking at the server's commands."""

    def __init__(self, client: Redis) -> None:
        self.sizes: list[int] = []
        self._client = client
        commands = commands_of(client)
        execute = commands.execute

        def counting(name: str, sha: str, count: int, *rest: Any) -> Any:
            self.sizes.append(len(rest) - count - 1 - count)
            return execute(name, sha, count, *rest)

        commands.execute = counting  # type: ignore[method-assign]  # a look, not a fake


async def lines(client: Redis, run: RunId = RUN) -> list[bytes]:
    raw: Any = await client.xrange(KEYS.events(run))
    return [fields[b"d"] for _, fields in raw]


async def test_the_stored_line_carries_the_id_that_append_returned(
    log_client: Redis, writer: EventLogWriter
) -> None:
    log = open_log(writer)
    assert log.last_id == EventId(1, 0)
    ids = [await log.append(event) for event in (Event("start"), said("é"), DONE)]
    assert ids == [EventId(1, 1), EventId(1, 2), EventId(1, 3)]
    assert log.last_id == EventId(1, 3)
    await log.flush()
    stored = await lines(log_client)
    assert [decode(line)["id"] for line in stored] == ["1-1", "1-2", "1-3"]
    assert decode(stored[1])["content"] == "é"
    assert all(line.isascii() and b"\n" not in line for line in stored)


async def test_everything_that_is_ready_shares_one_call(
    log_client: Redis, writer: EventLogWriter
) -> None:
    logs = [open_log(writer, RunId(f"65f0000000000000000001{i:02x}")) for i in range(50)]
    await logs[0].append(Event("start"))
    await logs[0].flush()
    calls = Calls(log_client)
    for log in logs:
        await log.append(said("a"))
        await log.append(said("b"))
    await asyncio.gather(*(log.flush() for log in logs))
    assert calls.sizes == [100]


async def test_what_arrives_during_a_call_forms_the_next_one(
    log_client: Redis, writer: EventLogWriter
) -> None:
    log = open_log(writer)
    await log.append(Event("start"))
    await log.flush()
    calls = Calls(log_client)
    await log.append(said("first"))
    await eventually(lambda: len(calls.sizes) == 1)
    for i in range(10):
        await log.append(said(str(i)))
    await log.flush()
    assert calls.sizes == [1, 10]
    assert len(await lines(log_client)) == 12


async def test_a_call_carries_no_more_than_its_bounds(
    log_client: Redis, writer: EventLogWriter
) -> None:
    calls = Calls(log_client)
    small, large = open_log(writer), open_log(writer, RunId("65f0000000000000000000b2"))
    for i in range(CALL_ENTRIES + 5):
        await small.append(said(f"{i:05}"))
    await small.flush()
    assert max(calls.sizes) == CALL_ENTRIES
    calls.sizes.clear()
    huge = "x" * (CALL_BYTES * 2 // 3)
    tasks = [asyncio.create_task(large.append(said(huge))) for _ in range(3)]
    await asyncio.gather(*tasks)
    await large.flush()
    assert calls.sizes == [1, 1, 1]
    assert len(await lines(log_client)) == CALL_ENTRIES + 5


async def test_a_line_that_does_not_fit_into_a_call_any_more_waits_for_the_next(
    log_client: Redis,
) -> None:
    writer = make_writer(log_client)
    calls = Calls(log_client)
    logs = [open_log(writer, RunId(f"65f0000000000000000001{i:02x}")) for i in range(4)]
    for log in logs:
        await log.append(said("x" * (CALL_BYTES * 2 // 5)))
    async with running(writer.run):
        await asyncio.gather(*(log.flush() for log in logs))
    assert calls.sizes[-2:] == [2, 2]
    for log in logs:
        assert len(await lines(log_client, log.run_id)) == 1


async def test_a_line_over_the_limit_is_refused_before_it_gets_an_id(
    log_client: Redis, writer: EventLogWriter
) -> None:
    log = open_log(writer)
    with pytest.raises(EventTooLarge, match=str(MAX_LINE_BYTES)):
        await log.append(said("x" * MAX_LINE_BYTES))
    assert await log.append(said("x" * (MAX_LINE_BYTES - 100))) == EventId(1, 1)
    assert await log.append(DONE) == EventId(1, 2)
    await log.flush()
    assert len(await lines(log_client)) == 2


async def test_nothing_can_be_appended_after_the_terminal_event(writer: EventLogWriter) -> None:
    log = open_log(writer)
    await log.append(DONE)
    with pytest.raises(AppendRefused) as caught:
        await log.append(said("late"))
    assert caught.value.answer is Answer.CLOSED
    await log.flush()


async def test_a_fenced_attempt_is_told_once_and_others_are_unaffected(
    log_client: Redis, writer: EventLogWriter
) -> None:
    told: list[Answer] = []
    old, new = open_log(writer, on_refused=told.append), open_log(writer, attempt=2)
    other = open_log(writer, RunId("65f0000000000000000000b2"))
    await old.append(Event("start"))
    await old.flush()
    await new.append(Event("restart"))
    await new.flush()
    await old.append(said("zombie"))
    await other.append(Event("start"))
    with pytest.raises(Fenced) as caught:
        await old.flush()
    assert isinstance(caught.value, AppendFenced)
    await other.flush()
    with pytest.raises(AppendFenced):
        await old.append(said("zombie again"))
    with pytest.raises(AppendFenced):
        await old.flush()
    assert told == [Answer.FENCED]
    assert old.refused is Answer.FENCED
    assert [decode(line)["id"] for line in await lines(log_client)] == ["1-1", "2-1"]
    assert writer.pending_bytes == 0


@pytest.mark.parametrize(
    ("tamper", "answer"),
    [
        (lambda client: client.delete(KEYS.events(RUN)), Answer.LOST),
        (lambda client: client.flushall(), Answer.LOST),
        (lambda client: client.xdel(KEYS.events(RUN), "1-2"), Answer.GAP),
        (
            lambda client: client.xadd(KEYS.events(RUN), {"d": "x", "end": "1"}, id="1-3"),
            Answer.CLOSED,
        ),
    ],
    ids=["deleted", "emptied", "tail lost", "ended"],
)
async def test_a_refusal_names_what_happened_to_the_log(
    log_client: Redis,
    writer: EventLogWriter,
    tamper: Callable[[Redis], Any],
    answer: Answer,
) -> None:
    log = open_log(writer)
    await log.append(Event("start"))
    await log.append(said("b"))
    await log.flush()
    await tamper(log_client)
    await log.append(said("c"))
    await log.append(said("d"))
    with pytest.raises(AppendRefused) as caught:
        await log.flush()
    assert caught.value.answer is answer


async def test_a_closer_may_write_a_new_end_when_it_repairs(
    log_client: Redis, writer: EventLogWriter
) -> None:
    first = open_log(writer)
    await first.append(DONE)
    await first.flush()
    closer = open_log(writer, attempt=2, repair=True)
    for event in (Event("restart"), said("all"), DONE):
        await closer.append(event)
        await closer.flush()
    assert [decode(line)["id"] for line in await lines(log_client)] == ["1-1", "2-1", "2-2", "2-3"]


async def test_append_waits_while_an_attempt_has_too_much_unacknowledged(
    log_client: Redis,
) -> None:
    writer = make_writer(log_client)
    log, other = open_log(writer), open_log(writer, RunId("65f0000000000000000000b2"))
    for _ in range(RUN_BYTES // 100_000 + 1):
        await log.append(said("x" * 100_000))
    waiting = asyncio.create_task(log.append(said("later")))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await asyncio.wait_for(other.append(said("another run goes on")), 2)
    async with running(writer.run):
        assert (await waiting).seq == 4
        await asyncio.gather(log.flush(), other.flush())
    assert writer.pending_bytes == 0


async def test_append_waits_while_the_process_has_too_much_unacknowledged(
    log_client: Redis,
) -> None:
    writer = make_writer(log_client, outbox_bytes=50_000)
    logs = [open_log(writer, RunId(f"65f0000000000000000001{i:02x}")) for i in range(20)]
    tasks = [asyncio.create_task(log.append(said("x" * 10_000))) for log in logs]
    await asyncio.sleep(0.02)
    assert sum(task.done() for task in tasks) == 5
    assert 50_000 <= writer.pending_bytes < 60_000
    logs[10].close()
    with pytest.raises(AppendRefused):
        await tasks[10]
    async with running(writer.run):
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(log.flush() for log in logs if log is not logs[10]))
    assert writer.pending_bytes == 0


async def test_nothing_is_lost_or_doubled_when_appends_and_flushes_are_cancelled(
    log_client: Redis,
) -> None:
    writer = make_writer(log_client)
    log = open_log(writer)
    for _ in range(3):
        await log.append(said("x" * 100_000))
    stuck = [asyncio.create_task(log.append(said("never"))) for _ in range(3)]
    flushing = asyncio.create_task(log.flush())
    await asyncio.sleep(0.01)
    for task in (*stuck, flushing):
        task.cancel()
    await asyncio.gather(*stuck, flushing, return_exceptions=True)
    async with running(writer.run):
        assert await log.append(said("next")) == EventId(1, 4)
        await log.flush()
    assert [decode(line)["id"] for line in await lines(log_client)] == [
        "1-1", "1-2", "1-3", "1-4",
    ]  # fmt: skip


async def test_nothing_is_lost_or_doubled_when_the_commit_loop_is_cancelled_and_run_again(
    log_client: Redis,
) -> None:
    writer = make_writer(log_client)
    log = open_log(writer)
    for i in range(20):
        task = asyncio.create_task(writer.run())
        await log.append(said(str(i)))
        for _ in range(i):  # cancels at ever later points of the call
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with running(writer.run):
        await log.flush()
    assert [decode(line)["content"] for line in await lines(log_client)] == [
        str(i) for i in range(20)
    ]


async def test_nothing_is_sent_while_the_lease_is_not_fresh(log_client: Redis) -> None:
    fresh = False
    writer = make_writer(log_client, may_commit=lambda: fresh)
    calls = Calls(log_client)
    log = open_log(writer)
    async with running(writer.run):
        await log.append(Event("start"))
        await asyncio.sleep(0.12)
        assert calls.sizes == []
        fresh = True
        await log.flush()
    assert calls.sizes[-1] == 1


async def test_closing_an_attempt_frees_its_memory(log_client: Redis) -> None:
    writer = make_writer(log_client)
    log = open_log(writer)
    await log.append(said("x" * 10_000))
    flushing = asyncio.create_task(log.flush())
    await asyncio.sleep(0)
    log.close()
    log.close()
    assert writer.pending_bytes == 0
    with pytest.raises(AppendRefused):
        await flushing
    with pytest.raises(AppendRefused):
        await log.append(said("y"))
    gone = weakref.ref(log)
    del log, flushing
    async with running(writer.run):
        await asyncio.sleep(0.02)
    gc.collect()
    assert gone() is None


async def test_the_answer_to_a_closed_attempt_is_ignored(log_client: Redis) -> None:
    writer = make_writer(log_client)
    calls = Calls(log_client)
    log, other = open_log(writer), open_log(writer, RunId("65f0000000000000000000b2"))
    async with running(writer.run):
        await log.append(Event("start"))
        await other.append(Event("start"))
        await eventually(lambda: bool(calls.sizes))
        log.close()
        await other.flush()
    assert writer.pending_bytes == 0


async def test_aclose_sends_what_is_left_and_then_closes_every_attempt(log_client: Redis) -> None:
    writer = make_writer(log_client)
    logs = [open_log(writer, RunId(f"65f0000000000000000001{i:02x}")) for i in range(3)]
    async with running(writer.run):
        for log in logs:
            await log.append(Event("start"))
        await writer.aclose()
    for log in logs:
        assert len(await lines(log_client, log.run_id)) == 1
        with pytest.raises(AppendRefused):
            await log.append(said("late"))


async def test_aclose_does_not_wait_when_nothing_can_be_sent(log_client: Redis) -> None:
    writer = make_writer(log_client)
    log = open_log(writer)
    await log.append(Event("start"))
    await asyncio.wait_for(writer.aclose(), 1)
    assert writer.pending_bytes == 0


async def test_an_error_in_on_refused_does_not_stop_the_writer(log_client: Redis) -> None:
    writer = make_writer(log_client)
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail(answer: Answer) -> None:
        raise RuntimeError(answer)

    old, new = open_log(writer, on_refused=fail), open_log(writer, attempt=2)
    async with running(writer.run):
        await new.append(Event("restart"))
        await new.flush()
        await old.append(Event("start"))
        with pytest.raises(AppendFenced):
            await old.flush()
        await new.append(said("on"))
        await new.flush()
    assert len(reported) == 1
