"""What the event log costs Redis per event: append, bell and read, against the bare commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Protocol

from bench.machine import cpu_of
from bench.processes import RedisChild, running_redis
from bench.result import Cell, Goal, Result, Scenario, Session, Table
from bench.scenarios.log_pipeline import PipelinedLog
from machina.eventlog import EventLogReader, EventLogWriter, make_log_client, make_log_keys
from machina.eventlog.writer import AttemptLog
from machina.events import Event
from machina.ids import BEGINNING, RunId, make_mint

PIECE: Final = Event("content", " tok-1234", {"partial": True})
WARM_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.001
GOAL: Final = 2.0
COMMANDS: Final = ("evalsha", "xadd", "publish", "xread")


@dataclass(frozen=True, slots=True)
class Pace:
    """How many runs say how much, and for how long it is measured."""

    runs: int
    per_second: float
    seconds: float
    rounds: int


class Log(Protocol):
    """A log of many runs: entries are appended on one side and seen on the other."""

    async def append(self, index: int) -> None:
        """One more piece of run number `index`."""

    seen: list[int]
    """Entries that came out, in order, by run."""


class ProductLog:
    """The product's own writer and reader, as worker and API use them."""

    def __init__(self, logs: list[AttemptLog]) -> None:
        self.seen = [0] * len(logs)
        self._logs = logs

    async def append(self, index: int) -> None:
        """See `Log`."""
        await self._logs[index].append(PIECE)


@asynccontextmanager
async def open_product_log(redis: RedisChild, runs: int) -> AsyncIterator[Log]:
    """Writer and reader on connections of their own, one viewer per run."""
    keys = make_log_keys("bench")
    commands = make_log_client(redis.url)
    reading = make_log_client(redis.url)
    writer = EventLogWriter(commands, keys, outbox_bytes=1 << 26, outbox_seconds=30)
    reader = EventLogReader(reading, keys)
    mint = make_mint()
    ids = [RunId(mint(time.time())) for _ in range(runs)]
    opened = [writer.open(run_id, 1, live_ttl_seconds=600, retention_seconds=600) for run_id in ids]
    log = ProductLog(opened)
    tasks = [asyncio.create_task(writer.run()), asyncio.create_task(reader.run())]
    tasks += [asyncio.create_task(_view(reader, id, log.seen, n)) for n, id in enumerate(ids)]
    try:
        yield log
    finally:
        await _end(tasks)
        await commands.aclose()
        await reading.aclose()


async def _view(reader: EventLogReader, run_id: RunId, seen: list[int], index: int) -> None:
    async with reader.subscribe(run_id, after=BEGINNING) as subscription:
        while True:
            for entry in await subscription.next(5.0):
                assert entry.id == (1, seen[index] + 1)
                seen[index] += 1


@asynccontextmanager
async def _open_pipelined(
    redis: RedisChild, runs: int, *, bell_per_event: bool
) -> AsyncIterator[Log]:
    log = PipelinedLog(redis.url, runs, PIECE, bell_per_event=bell_per_event)
    tasks = [asyncio.create_task(loop) for loop in log.loops()]
    try:
        await log.ready.wait()
        yield log
    finally:
        await _end(tasks)
        await log.aclose()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Ends loops that never end by themselves; one that did has failed."""
    failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for error in failed:
        if error is not None:
            raise error


OpenLog = Callable[[RedisChild, int], AbstractAsyncContextManager[Log]]
KINDS: Final[dict[str, OpenLog]] = {
    "machina": open_product_log,
    "XADD, one PUBLISH per commit, XREAD": lambda redis, runs: _open_pipelined(
        redis, runs, bell_per_event=False
    ),
    "XADD + PUBLISH per event, XREAD": lambda redis, runs: _open_pipelined(
        redis, runs, bell_per_event=True
    ),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """One window."""

    events: int
    us: float
    calls: dict[str, int]


def run(session: Session) -> Result:
    """The same pieces at the same times through all three, in turn, on one Redis."""
    paces = [Pace(200, 50, 6, 3), Pace(20, 50, 6, 3)]
    if session.quick:
        paces = [Pace(10, 20, 1, 1)]
    result = Result()
    with running_redis(session.home("redis")) as redis:
        for pace in paces:
            session.say(f"{pace.runs} runs × {pace.per_second:g}/s")
            costs: dict[str, list[Cost]] = {name: [] for name in KINDS}
            for _ in range(pace.rounds):
                for name, opener in KINDS.items():
                    costs[name].append(asyncio.run(_drive(redis, opener, pace)))
            _add(result, pace, costs)
    return result


async def _drive(redis: RedisChild, opener: OpenLog, pace: Pace) -> Cost:
    async with opener(redis, pace.runs) as log:
        stop = asyncio.Event()
        produce = asyncio.create_task(_produce(log, pace, stop))
        await asyncio.sleep(WARM_SECONDS)
        seen, cpu, calls = sum(log.seen), cpu_of(redis.pids), await _calls(redis)
        await asyncio.sleep(pace.seconds)
        events = sum(log.seen) - seen
        us = (cpu_of(redis.pids) - cpu) * 1e6 / max(events, 1)
        now = await _calls(redis)
        stop.set()
        said = await produce
        async with asyncio.timeout(10):
            while log.seen != said:  # noqa: ASYNC110  # what is under way must still arrive
                await asyncio.sleep(0.01)
        return Cost(events, us, {name: now[name] - calls[name] for name in COMMANDS})


async def _produce(log: Log, pace: Pace, stop: asyncio.Event) -> list[int]:
    """Every run at its pace, the runs spread evenly over it. Returns how much each has said."""
    loop = asyncio.get_running_loop()
    said = [0] * pace.runs
    began = loop.time()
    total = 0
    while not stop.is_set():
        due = int((loop.time() - began) * pace.per_second * pace.runs)
        for number in range(total, due):
            index = number % pace.runs
            await log.append(index)
            said[index] += 1
        total = due
        await asyncio.sleep(TICK_SECONDS)
    return said


async def _calls(redis: RedisChild) -> dict[str, int]:
    def ask() -> dict[str, int]:
        with redis.connect() as client:
            stats: dict[str, Any] = client.info("commandstats")
        return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in COMMANDS}

    return await asyncio.to_thread(ask)


def _add(result: Result, pace: Pace, costs: dict[str, list[Cost]]) -> None:
    rows: list[list[Cell]] = []
    ours, bare, per_event = ([one.us for one in costs[name]] for name in KINDS)
    for name, all_of in costs.items():
        us = median(one.us for one in all_of)
        # A script's own XADDs are in the statistics too; a commit is then one EVALSHA.
        calls = {c: sum(one.calls[c] for one in all_of) for c in COMMANDS}
        events = sum(one.events for one in all_of)
        commits = calls["evalsha"] or calls["publish"]
        rows.append(
            [
                name,
                round(us, 2),
                f"{us / median(bare):.2f}×",
                "–" if "per event" in name else round(events / max(commits, 1), 1),
                round(events / max(calls["xread"], 1), 1),
            ]
        )
    head = ["append, bell, read", "Redis µs/event", "ratio", "events per commit", "per read"]
    title = f"{pace.runs} runs × {pace.per_second:g} events/s, medians of {pace.rounds} rounds"
    result.tables.append(Table(title, head, rows))
    over = [a / b for a, b in zip(ours, bare, strict=True)]
    also = [a / b for a, b in zip(ours, per_event, strict=True)]
    what = f"Redis per event at {pace.runs} × {pace.per_second:g}"
    result.goals.append(Goal(f"{what}, over one PUBLISH per commit", median(over), GOAL, "×"))
    result.goals.append(Goal(f"{what}, over one PUBLISH per event", median(also), GOAL, "×"))
    result.checked.append(
        f"{sum(one.events for all_of in costs.values() for one in all_of)} entries of "
        f"{pace.runs} runs came out in order, each once, none missing at the end"
    )


SCENARIO = Scenario("redis-cost", "Redis per event", run, needs_bench_group=False)
