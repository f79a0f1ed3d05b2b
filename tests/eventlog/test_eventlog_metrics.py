"""What writer and reader count: per commit and per surprise, never per entry."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from machina.eventlog.answers import AppendRefused
from machina.eventlog.clients import make_log_client
from machina.eventlog.keys import make_log_keys
from machina.eventlog.reader import EventLogReader
from machina.eventlog.writer import AttemptLog, EventLogWriter
from machina.events import Event
from machina.ids import BEGINNING, RunId
from machina.observability.metrics import Metrics, make_metrics
from tests.measuring import measured
from tests.proxy import open_proxy
from tests.running import running
from tests.services import RedisServer, off_loop

KEYS = make_log_keys("test")
RUN = RunId("65f0000000000000000000a1")
OTHERS = [RunId(f"65f0000000000000000001{i:02x}") for i in range(20)]


@pytest.fixture
def metrics() -> Metrics:
    return make_metrics()


def make_writer(client: Redis, metrics: Metrics, outbox_seconds: float = 30) -> EventLogWriter:
    return EventLogWriter(
        client,
        KEYS,
        outbox_bytes=1_000_000,
        outbox_seconds=outbox_seconds,
        rng=random.Random(7),
        metrics=metrics,
    )


def open_log(writer: EventLogWriter, run: RunId = RUN, attempt: int = 1) -> AttemptLog:
    return writer.open(run, attempt, live_ttl_seconds=600, retention_seconds=60)


def answers(metrics: Metrics) -> dict[str, float]:
    prefix = 'machina_append_answers_total{answer="'
    return {
        name.removeprefix(prefix).removesuffix('"}'): value
        for name, value in measured(metrics.source).items()
        if name.startswith(prefix) and value
    }


async def test_a_commit_is_measured_once_however_much_it_carries(
    log_client: Redis, metrics: Metrics
) -> None:
    writer = make_writer(log_client, metrics)
    logs = [open_log(writer, run) for run in OTHERS]
    for log in logs:
        await log.append(Event("start"))
        await log.append(Event("content", "a"))
    async with running(writer.run):
        await asyncio.gather(*(log.flush() for log in logs))
    numbers = measured(metrics.source)
    assert numbers["machina_commit_seconds_count"] == 1
    assert numbers["machina_append_seconds_count"] == 1
    assert numbers["machina_commit_entries_total"] == 40
    assert numbers["machina_append_seconds_sum"] > numbers["machina_commit_seconds_sum"] > 0
    assert answers(metrics) == {}


async def test_a_lost_answer_counts_as_a_failure_and_its_repetition_as_a_duplicate(
    own_redis: RedisServer, metrics: Metrics
) -> None:
    async with open_proxy(str(own_redis.socket)) as proxy:
        client = make_log_client(proxy.url)
        writer = make_writer(client, metrics)
        log = open_log(writer)
        async with running(writer.run):
            await log.append(Event("start"))
            await log.flush()
            proxy.drop_reply_to(b"EVALSHA")
            await log.append(Event("content", "a"))
            await log.flush()
        await client.aclose()
    numbers = measured(metrics.source)
    assert numbers["machina_commit_failures_total"] == 1
    assert numbers["machina_commit_seconds_count"] == 2
    assert answers(metrics) == {"DUP": 1}


@pytest.mark.parametrize(
    ("tamper", "answer"),
    [
        (lambda client: client.delete(KEYS.events(RUN)), "LOST"),
        (lambda client: client.xdel(KEYS.events(RUN), "1-2"), "GAP"),
        (lambda client: client.xadd(KEYS.events(RUN), {"d": "x", "end": "1"}, id="1-3"), "CLOSED"),
    ],
    ids=["deleted", "tail lost", "ended"],
)
async def test_a_refusal_is_counted_under_its_name(
    log_client: Redis, metrics: Metrics, tamper: Callable[[Redis], Any], answer: str
) -> None:
    writer = make_writer(log_client, metrics)
    async with running(writer.run):
        log = open_log(writer)
        await log.append(Event("start"))
        await log.append(Event("content", "a"))
        await log.flush()
        await tamper(log_client)
        await log.append(Event("content", "b"))
        await log.append(Event("content", "c"))
        with pytest.raises(AppendRefused):
            await log.flush()
    assert answers(metrics) == {answer: 1}


async def test_a_redis_that_stays_away_counts_failures_and_then_the_outbox(
    own_redis: RedisServer, metrics: Metrics
) -> None:
    client = make_log_client(own_redis.url)
    writer = make_writer(client, metrics, outbox_seconds=0.2)
    async with running(writer.run):
        log = open_log(writer)
        await log.append(Event("start"))
        await log.flush()
        await off_loop(own_redis.kill)
        await log.append(Event("content", "a"))
        with pytest.raises(AppendRefused):
            await log.flush()
    await client.aclose()
    assert answers(metrics) == {"OUTBOX": 1}
    assert measured(metrics.source)["machina_commit_failures_total"] >= 1


async def test_a_hole_is_counted_once_however_often_it_is_met(
    log_client: Redis, metrics: Metrics
) -> None:
    writer = make_writer(log_client, metrics)
    reader = EventLogReader(log_client, KEYS, sweep_seconds=0.05, metrics=metrics)
    async with running(writer.run, reader.run):
        log = open_log(writer)
        for text in "abcd":
            await log.append(Event("content", text))
        await log.flush()
        await log_client.xdel(KEYS.events(RUN), "1-2")
        async with reader.subscribe(RUN, after=BEGINNING) as viewer:
            assert [entry.id.seq for entry in await viewer.next(5)] == [1]
            for _ in range(3):
                assert await viewer.next(5) == []
                assert viewer.take_disturbed()
    assert measured(metrics.source)["machina_log_holes_total"] == 1
