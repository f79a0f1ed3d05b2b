"""The writer while Redis fails: nothing is lost, nothing is doubled, and no loss goes unnoticed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from machina.eventlog.answers import Answer, AppendRefused
from machina.eventlog.clients import commands_of, make_log_client
from machina.eventlog.keys import make_log_keys
from machina.eventlog.writer import AttemptLog, EventLogWriter
from machina.events import Event
from machina.ids import RunId
from tests.proxy import open_proxy
from tests.running import eventually, running
from tests.services import RedisServer, find_redis_6, find_redis_7, off_loop, require

KEYS = make_log_keys("test")
RUNS = [RunId(f"65f0000000000000000001{i:02x}") for i in range(20)]


@asynccontextmanager
async def open_client(url: str) -> AsyncIterator[Redis]:
    commands = make_log_client(url)
    try:
        yield commands
    finally:
        await commands.aclose()


def make_writer(client: Redis, outbox_seconds: float = 30) -> EventLogWriter:
    return EventLogWriter(
        client,
        KEYS,
        outbox_bytes=1_000_000,
        outbox_seconds=outbox_seconds,
        rng=random.Random(7),
    )


def open_log(writer: EventLogWriter, run: RunId = RUNS[0], **options: Any) -> AttemptLog:
    return writer.open(run, 1, live_ttl_seconds=600, retention_seconds=60, **options)


def said(text: object) -> Event:
    return Event("content", str(text))


def ids(server: RedisServer, run: RunId = RUNS[0]) -> list[str]:
    with server.connect() as client:
        raw: Any = client.xrange(KEYS.events(run))
        return [name.decode() for name, _ in raw]


def dense(count: int) -> list[str]:
    return [f"1-{seq}" for seq in range(1, count + 1)]


async def test_a_batch_is_not_doubled_when_its_answer_is_lost(own_redis: RedisServer) -> None:
    async with (
        open_proxy(str(own_redis.socket)) as proxy,
        open_client(proxy.url) as client,
    ):
        writer = make_writer(client)
        log = open_log(writer)
        async with running(writer.run):
            await log.append(Event("start"))
            await log.flush()
            for i in range(10):
                proxy.drop_reply_to(b"EVALSHA")
                await log.append(said(i))
                await log.append(said(i))
                await log.flush()
        assert proxy.dropped == 10
    assert ids(own_redis) == dense(21)


async def test_every_event_is_there_once_when_redis_is_killed_under_load(
    own_redis: RedisServer,
) -> None:
    async def speak(log: AttemptLog) -> int:
        spoken = 0
        while not stop.is_set():
            await log.append(said("x" * 50))
            spoken += 1
            await asyncio.sleep(0)
        await log.append(Event("done"))
        await log.flush()
        return spoken + 1

    stop = asyncio.Event()
    async with open_client(own_redis.url) as client:
        writer = make_writer(client)
        async with running(writer.run):
            speakers = [asyncio.create_task(speak(open_log(writer, run))) for run in RUNS]
            for _ in range(4):
                await asyncio.sleep(0.05)
                await off_loop(own_redis.restart)
            await asyncio.sleep(0.05)
            stop.set()
            counts = await asyncio.gather(*speakers)
    for run, count in zip(RUNS, counts, strict=True):
        assert ids(own_redis, run) == dense(count)
    assert min(counts) > 50


async def test_nothing_is_lost_or_doubled_when_redis_freezes_longer_than_a_command_may_take(
    own_redis: RedisServer,
) -> None:
    async with open_client(f"{own_redis.url}?socket_timeout=0.1") as client:
        writer = make_writer(client)
        log = open_log(writer)
        async with running(writer.run):
            await log.append(Event("start"))
            await log.flush()
            with own_redis.frozen():
                for i in range(20):
                    await log.append(said(i))
                    await asyncio.sleep(0.02)
            await log.append(Event("done"))
            await log.flush()
    assert ids(own_redis) == dense(22)


@pytest.mark.parametrize("find", [find_redis_6, find_redis_7])
async def test_a_lost_tail_is_noticed_when_redis_comes_back_with_less(find: Any) -> None:
    server = RedisServer(require(find, optional=find is find_redis_7))
    try:
        async with open_client(server.url) as client:
            writer = make_writer(client)
            told: list[Answer] = []
            log = open_log(writer, on_refused=told.append)
            other = open_log(writer, RUNS[1])
            async with running(writer.run):
                await other.append(Event("start"))
                await other.flush()
                for i in range(50):
                    await log.append(said(i))
                    await log.flush()
                await off_loop(lambda: server.restart(cut_bytes=1_000))
                left = ids(server)
                assert left == dense(len(left))
                assert 0 < len(left) < 50
                await log.append(said("on"))
                with pytest.raises(AppendRefused) as caught:
                    await log.flush()
                assert caught.value.answer is Answer.GAP
                await other.append(said("this log lost nothing"))
                await other.flush()
        assert told == [Answer.GAP]
        assert ids(server) == left, "nothing was appended after the hole"
    finally:
        server.close()


async def test_what_was_not_acknowledged_is_sent_again_when_redis_lost_only_that(
    own_redis: RedisServer,
) -> None:
    async with (
        open_proxy(str(own_redis.socket)) as proxy,
        open_client(proxy.url) as client,
    ):
        writer = make_writer(client)
        log = open_log(writer)
        async with running(writer.run):
            await log.append(Event("start"))
            await log.flush()
            proxy.drop_reply_to(b"EVALSHA")
            await log.append(said("executed, and never acknowledged"))
            await eventually(lambda: proxy.dropped == 1)
            await off_loop(lambda: own_redis.restart(cut_bytes=10))
            await log.append(said("later"))
            await log.flush()
    assert ids(own_redis) == dense(3)


@pytest.mark.parametrize(
    ("breaks", "mends"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["out of memory", "read-only"],
)
async def test_events_wait_when_redis_refuses_to_write(
    own_redis: RedisServer, breaks: tuple[str, ...], mends: tuple[str, ...]
) -> None:
    async with open_client(own_redis.url) as client:
        writer = make_writer(client)
        log, fresh = open_log(writer), open_log(writer, RUNS[1])
        async with running(writer.run):
            await log.append(Event("start"))
            await log.flush()
            with own_redis.connect() as outside:
                outside.execute_command(*breaks)
                await log.append(said("waits"))
                await fresh.append(Event("start"))
                await asyncio.sleep(0.15)
                assert not outside.exists(KEYS.events(RUNS[1]), KEYS.fence(RUNS[1]))
                assert log.refused is None
                outside.execute_command(*mends)
            await log.flush()
            await fresh.flush()
    assert ids(own_redis) == dense(2)
    assert ids(own_redis, RUNS[1]) == dense(1)


async def test_an_attempt_is_handed_back_when_redis_is_away_too_long(
    own_redis: RedisServer,
) -> None:
    async with open_client(own_redis.url) as client:
        writer = make_writer(client, outbox_seconds=0.2)
        told: list[Answer] = []
        log, idle = open_log(writer, on_refused=told.append), open_log(writer, RUNS[1])
        async with running(writer.run):
            await log.append(Event("start"))
            await idle.append(Event("start"))
            await asyncio.gather(log.flush(), idle.flush())
            await off_loop(own_redis.kill)
            await log.append(said("never"))
            with pytest.raises(AppendRefused) as caught:
                await log.flush()
            assert caught.value.answer is Answer.OUTBOX
            assert told == [Answer.OUTBOX]
            assert writer.pending_bytes == 0
            await off_loop(own_redis.start)
            await idle.append(said("this one had nothing waiting"))
            await idle.flush()
    assert ids(own_redis, RUNS[1]) == dense(2)


async def test_an_attempt_is_handed_back_when_redis_hangs_too_long(
    own_redis: RedisServer,
) -> None:
    async with open_client(own_redis.url) as client:
        writer = make_writer(client, outbox_seconds=0.2)
        log = open_log(writer)
        async with running(writer.run):
            await log.append(Event("start"))
            await log.flush()
            with own_redis.frozen():
                await log.append(said("hangs"))
                async with asyncio.timeout(4):
                    with pytest.raises(AppendRefused):
                        await log.flush()


async def test_an_attempt_is_told_that_redis_is_full_only_while_it_is(
    own_redis: RedisServer,
) -> None:
    async with open_client(own_redis.url) as client:
        writer = make_writer(client, outbox_seconds=0.2)
        logs = (open_log(writer, run) for run in RUNS)

        async def refusal() -> Answer | None:
            log = next(logs)
            await log.append(Event("start"))
            try:
                await log.flush()
            except AppendRefused as refused:
                return refused.answer
            return None

        async with running(writer.run):
            with own_redis.connect() as outside:
                outside.config_set("maxmemory", 1)
                assert await refusal() is Answer.FULL
                outside.config_set("maxmemory", 0)
            while await refusal() is not None:
                pass  # the writer's pause between tries has grown
            await off_loop(own_redis.kill)
            assert await refusal() is Answer.OUTBOX


async def test_append_waits_when_redis_is_away_and_the_outbox_is_full(
    own_redis: RedisServer,
) -> None:
    async with open_client(own_redis.url) as client:
        writer = make_writer(client)
        logs = [open_log(writer, run) for run in RUNS]
        async with running(writer.run):
            await off_loop(own_redis.kill)
            tasks = [
                asyncio.create_task(log.append(said("x" * 60_000))) for log in logs for _ in (1, 2)
            ]
            await asyncio.sleep(0.1)
            assert writer.pending_bytes < 1_000_000 + 61_000
            assert sum(not task.done() for task in tasks) > 0
            await off_loop(own_redis.start)
            await asyncio.gather(*tasks)
            await asyncio.gather(*(log.flush() for log in logs))
    for run in RUNS:
        assert ids(own_redis, run) == dense(2)


async def test_the_writer_goes_on_when_an_unexpected_error_ended_its_loop(
    own_redis: RedisServer,
) -> None:
    async with open_client(own_redis.url) as client:
        writer = make_writer(client)
        log = open_log(writer)
        commands = commands_of(client)
        execute = commands.execute

        def broken(*arguments: Any) -> Any:
            commands.execute = execute  # type: ignore[method-assign]  # once only
            raise ZeroDivisionError

        commands.execute = broken  # type: ignore[method-assign]  # a defect, injected
        await log.append(Event("start"))
        with pytest.raises(ZeroDivisionError):
            await writer.run()
        async with running(writer.run):
            await log.flush()
    assert ids(own_redis) == dense(1)


def test_the_servers_are_the_ones_the_rulings_name() -> None:
    assert isinstance(require(find_redis_6, optional=False), Path)
    assert require(find_redis_6, optional=False) != require(find_redis_7, optional=True)
