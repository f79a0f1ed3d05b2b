"""The reader while Redis fails or loses something: it waits, comes back, and never glosses over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from machina.errors import LogDown
from machina.eventlog.clients import make_log_client
from machina.eventlog.keys import make_log_keys
from machina.eventlog.reader import EventLogReader, Subscription
from machina.events import Entry
from machina.ids import BEGINNING, EventId, RunId
from tests.proxy import open_proxy
from tests.running import running
from tests.services import RedisServer, off_loop

KEYS = make_log_keys("test")
RUN = RunId("65f0000000000000000000a1")
OTHER = RunId("65f0000000000000000000b2")
SWEEP = 0.05


@asynccontextmanager
async def open_reader(url: str, sweep_seconds: float = SWEEP) -> AsyncIterator[EventLogReader]:
    commands = make_log_client(url)
    reader = EventLogReader(commands, KEYS, sweep_seconds=sweep_seconds)
    try:
        async with running(reader.run):
            yield reader
    finally:
        await commands.aclose()


def add(
    server: RedisServer,
    first: int,
    last: int,
    *,
    attempt: int = 1,
    run: RunId = RUN,
    bell: bool = False,
) -> list[Entry]:
    """Writes entries behind the script's back: with the bell, or as if it had been lost."""
    entries = [
        Entry(EventId(attempt, seq), f"{attempt}-{seq}".encode()) for seq in range(first, last + 1)
    ]
    with server.connect() as client:
        for entry in entries:
            client.xadd(KEYS.events(run), {"d": entry.data}, id=str(entry.id))
        if bell:
            client.publish(KEYS.bells, run)
    return entries


def tamper(server: RedisServer, *command: Any) -> None:
    with server.connect() as client:
        client.execute_command(*command)


async def read(subscription: Subscription, count: int) -> list[Entry]:
    got: list[Entry] = []
    async with asyncio.timeout(5):
        while len(got) < count:
            got += await subscription.next(0.5)
            subscription.take_disturbed()
    assert len(got) == count
    return got


async def test_a_lost_bell_is_repaired_by_the_sweep(redis_server: RedisServer) -> None:
    async with (
        open_reader(redis_server.url) as reader,
        reader.subscribe(RUN, after=BEGINNING) as viewer,
    ):
        assert await viewer.next(0.1) == []
        said = add(redis_server, 1, 3)
        assert await read(viewer, 3) == said
        waiting = asyncio.create_task(viewer.next(5))
        await asyncio.sleep(0.01)
        said = add(redis_server, 4, 5)
        assert await waiting == said


async def test_a_viewer_goes_on_when_the_bell_connection_was_cut(
    redis_server: RedisServer,
) -> None:
    async with (
        open_reader(redis_server.url, sweep_seconds=1_000) as reader,
        reader.subscribe(RUN, after=BEGINNING) as viewer,
    ):
        said = add(redis_server, 1, 1, bell=True)
        assert await read(viewer, 1) == said
        waiting = asyncio.create_task(viewer.next(5))
        await asyncio.sleep(0.01)
        tamper(redis_server, "CLIENT", "KILL", "TYPE", "pubsub")
        said = add(redis_server, 2, 2, bell=True)  # nobody hears it
        assert await waiting == said


async def test_viewers_go_on_when_redis_was_killed_and_restarted(own_redis: RedisServer) -> None:
    async with (
        open_reader(own_redis.url) as reader,
        reader.subscribe(RUN, after=BEGINNING) as viewer,
        reader.subscribe(OTHER, after=BEGINNING) as other,
    ):
        last = 0
        for _ in range(3):
            said = add(own_redis, last + 1, last + 5, bell=True)
            assert await read(viewer, 5) == said
            await off_loop(own_redis.restart)
            said = add(own_redis, last + 6, last + 6, bell=True)
            assert await read(viewer, 1) == said
            last += 6
        assert await other.next(0.1) == []
        assert not viewer.take_disturbed()
        assert not other.take_disturbed()


async def test_a_viewer_may_come_while_redis_is_away(own_redis: RedisServer) -> None:
    await off_loop(own_redis.kill)
    async with open_reader(own_redis.url) as reader:
        assert not await reader.ping()
        with pytest.raises(LogDown):
            await reader.inspect(RUN)
        async with (
            reader.subscribe(RUN, after=BEGINNING) as first,
            reader.subscribe(RUN, after=EventId(1, 2)) as second,
        ):
            assert await first.next(0.05) == []
            assert await second.next(0.05) == []
            waiting = asyncio.gather(first.next(5), second.next(5))
            await off_loop(own_redis.start)
            said = add(own_redis, 1, 4, bell=True)
            one, two = await waiting
            assert one + (await read(first, 4 - len(one)) if len(one) < 4 else []) == said
            assert two == said[2:]
        assert await reader.ping()


async def test_a_replay_goes_on_when_redis_comes_back(own_redis: RedisServer) -> None:
    said = add(own_redis, 1, 2_000)
    async with (
        open_reader(own_redis.url) as reader,
        reader.subscribe(RUN, after=BEGINNING) as viewer,
    ):
        got = await viewer.next(1)
        await off_loop(own_redis.kill)
        while batch := await viewer.next(0.05):
            got += batch
        waiting = asyncio.create_task(viewer.next(5))
        await off_loop(own_redis.start)
        got += await waiting
        got += await read(viewer, 2_000 - len(got))
        assert got == said


async def test_a_connection_that_died_silently_is_noticed(own_redis: RedisServer) -> None:
    async with (
        open_proxy(str(own_redis.socket)) as proxy,
        open_reader(f"{proxy.url}?socket_timeout=0.1", sweep_seconds=0.1) as reader,
        reader.subscribe(RUN, after=BEGINNING) as viewer,
    ):
        said = add(own_redis, 1, 1, bell=True)
        assert await read(viewer, 1) == said
        proxy.freeze()
        said = add(own_redis, 2, 3, bell=True)
        for _ in range(8):
            assert await viewer.next(0.05) == []
        assert proxy.connections <= 10
        proxy.thaw()
        assert await read(viewer, 2) == said
        assert not viewer.disturbed


async def test_a_viewer_is_told_when_the_log_vanished(redis_server: RedisServer) -> None:
    add(redis_server, 1, 3)
    add(redis_server, 1, 3, run=OTHER)
    async with (
        open_reader(redis_server.url) as reader,
        reader.subscribe(RUN, after=BEGINNING) as viewer,
        reader.subscribe(OTHER, after=BEGINNING) as other,
    ):
        await read(viewer, 3)
        await read(other, 3)
        assert await viewer.next(3 * SWEEP) == []
        assert not viewer.take_disturbed()
        tamper(redis_server, "DEL", KEYS.events(RUN))
        async with asyncio.timeout(4):
            assert await viewer.next(5) == []
        assert await viewer.next(5) == [], "until it is taken"
        assert viewer.take_disturbed()
        assert not viewer.take_disturbed()
        async with asyncio.timeout(4):
            assert await viewer.next(5) == [], "and again, while it is so"
        assert viewer.take_disturbed()
        assert await other.next(3 * SWEEP) == []
        assert not other.disturbed
        said = add(redis_server, 1, 2, attempt=2, bell=True)
        assert await read(viewer, 2) == said, "a new attempt heals it"
        assert await viewer.next(3 * SWEEP) == []
        assert not viewer.disturbed


async def test_viewers_are_told_when_the_log_lost_its_tail(redis_server: RedisServer) -> None:
    add(redis_server, 1, 9)
    async with (
        open_reader(redis_server.url) as reader,
        reader.subscribe(RUN, after=BEGINNING) as ahead,
        reader.subscribe(RUN, after=EventId(1, 4)) as late,
    ):
        await read(ahead, 9)
        tamper(redis_server, "XDEL", KEYS.events(RUN), *[f"1-{seq}" for seq in range(7, 10)])
        async with asyncio.timeout(4):
            while not ahead.disturbed:
                assert await ahead.next(5) == []
        got = await late.next(1)
        while batch := await late.next(3 * SWEEP):
            got += batch
        assert [entry.id.seq for entry in got][:2] == [5, 6]
        assert late.disturbed == (late.cursor > EventId(1, 6)), "told only if it saw what is lost"
        said = add(redis_server, 1, 1, attempt=2, bell=True)
        assert await read(ahead, 1) == said
        assert await read(late, 1) == said


async def test_a_viewer_with_an_id_ahead_of_the_log_harms_no_other(
    redis_server: RedisServer,
) -> None:
    add(redis_server, 1, 3)
    async with (
        open_reader(redis_server.url) as reader,
        reader.subscribe(RUN, after=EventId(1, 900)) as ahead,
        reader.subscribe(RUN, after=EventId(1, 3)) as honest,
    ):
        async with asyncio.timeout(4):
            assert await ahead.next(5) == []
        assert ahead.take_disturbed()
        reading = asyncio.create_task(read(honest, 6))
        for seq in range(4, 10):
            await ahead.next(0.02)
            add(redis_server, seq, seq, bell=True)
            ahead.take_disturbed()
        assert [entry.id.seq for entry in await reading] == list(range(4, 10))
        said = add(redis_server, 1, 1, attempt=2, bell=True)
        assert await read(ahead, 1) == said


async def test_a_hole_is_never_glossed_over(redis_server: RedisServer) -> None:
    add(redis_server, 1, 9)
    tamper(redis_server, "XDEL", KEYS.events(RUN), "1-4")
    async with (
        open_reader(redis_server.url) as reader,
        reader.subscribe(RUN, after=BEGINNING) as viewer,
        reader.subscribe(RUN, after=EventId(1, 6)) as beyond,
    ):
        assert [entry.id.seq for entry in await read(viewer, 3)] == [1, 2, 3]
        for _ in range(3):
            async with asyncio.timeout(4):
                assert await viewer.next(5) == []
            assert viewer.take_disturbed()
        assert [entry.id.seq for entry in await read(beyond, 3)] == [7, 8, 9]
        for seq in range(10, 13):
            waiting = asyncio.create_task(viewer.next(5))
            reading = asyncio.create_task(beyond.next(5))
            await asyncio.sleep(0.01)
            said = add(redis_server, seq, seq, bell=True)
            async with asyncio.timeout(4):
                assert await reading == said, "a viewer beyond the hole is not held up"
                assert await waiting == []
            assert viewer.take_disturbed()
        assert not beyond.disturbed
        assert viewer.cursor == EventId(1, 3)
