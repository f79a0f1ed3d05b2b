"""The main scenario: clients that start one run after the other while faults are fired."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.chaos.aftermath import ask_again, leaks, list_runs
from bench.chaos.client import Client, Place
from bench.chaos.faults import Injector
from bench.chaos.fleet import Fleet, open_fleet
from bench.chaos.plan import Habits, Kind, Load, client_random, plan_faults, plan_runs
from bench.chaos.seen import Fault, Watch
from bench.chaos.verdict import Verdict, convict

FIRST_FAULT_SECONDS: Final = 3.0
AFTER_LAST_SECONDS: Final = 4.0
RAMP_SECONDS: Final = 2.0
"""Clients begin one after the other within this time."""
HABITS: Final = Habits()
ZOMBIE_SECONDS: Final = 2.0
"""How long a process that was stopped gets to do harm before the logs are read once more."""
LOG_COUNTERS: Final = {
    "attempt fenced": ("attempt.fenced", "attempt.refused"),
    "worker buried": ("worker.buried",),
    "end repaired": ("run.end_not_published", "run.repaired"),
}
"""Counted in the servers' logs: a client cannot see them."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the deployment is and what it is told."""

    apis: int = 3
    workers: int = 2
    drain_seconds: float = 3.0

    def environ(self, streams: int) -> dict[str, str]:
        """Settings of every process: room for all streams, attempts enough for all faults, and
        a breaker that lets the load come back between two faults.
        """
        return {
            "MAX_CONCURRENT_STREAMS": str(2 * streams + 10),
            "MACHINA_MAX_ATTEMPTS": "20",
            "MACHINA_HEARTBEAT_SECONDS": "2",
            "MACHINA_BREAKER_COOL_DOWN_SECONDS": "2",
            "MACHINA_DRAIN_SECONDS": f"{self.drain_seconds:g}",
            "LOG_LEVEL": "warning",
        }


@dataclass(frozen=True, slots=True)
class Order:
    """One run of the command."""

    seed: int
    streams: int
    faults: int
    deck: Sequence[Kind]
    every: float
    shape: Shape
    habits: Habits = HABITS
    longest: float = 10.0
    """Of the runs, in seconds, if nothing happens to them."""
    least_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """How long clients start new runs, unless faults have to wait."""
        needed = FIRST_FAULT_SECONDS + self.every * self.faults + AFTER_LAST_SECONDS
        return max(needed, self.least_seconds)


async def run_load(order: Order, verdict: Verdict, home: Path) -> None:
    """Runs the order on a deployment of its own and fills the verdict."""
    environ = order.shape.environ(order.streams)
    shape = order.shape
    async with open_fleet(home, apis=shape.apis, workers=shape.workers, environ=environ) as fleet:
        place = Place(fleet.urls, fleet.dev.admin_key)
        watches, faults = await _under_load(order, fleet, place)
        await fleet.wait_ready()
        await asyncio.sleep(ZOMBIE_SECONDS)
        leaked = await leaks(place)
        await ask_again(place, watches)
        rows = await list_runs(place)
        count_logs(verdict, fleet)
        convict(verdict, watches, faults, rows, leaked)
        judge_pauses(verdict, faults)


async def _under_load(order: Order, fleet: Fleet, place: Place) -> tuple[list[Watch], list[Fault]]:
    plans = plan_faults(
        order.seed, order.deck, order.faults, first=FIRST_FAULT_SECONDS, every=order.every
    )
    injector = Injector(fleet, place, plans)
    earliest = time.monotonic() + order.seconds
    over = asyncio.Event()

    async def hurt() -> None:
        await injector.run()
        await asyncio.sleep(max(AFTER_LAST_SECONDS, earliest - time.monotonic()))
        over.set()

    async with place.session(order.habits.silence_seconds) as session, asyncio.TaskGroup() as group:
        clients = []
        for number in range(order.streams):
            client = Client(place, session, order.habits, client_random(order.seed, number))
            clients.append(group.create_task(_keep_watching(order, number, client, over)))
        group.create_task(hurt())
    return [watch for client in clients for watch in client.result()], injector.faults


async def _keep_watching(
    order: Order, number: int, client: Client, over: asyncio.Event
) -> list[Watch]:
    """The runs of one client, the last of them begun before it is over."""
    load = Load(order.streams, longest=order.longest)
    await asyncio.sleep(RAMP_SECONDS * number / order.streams)
    watches = []
    for plan in plan_runs(order.seed, number, load, order.habits):
        watches.append(await client.watch(plan))
        if over.is_set():
            break
    return watches


def count_logs(verdict: Verdict, fleet: Fleet) -> None:
    """Adds what the servers' logs say: counters, and every warning by name."""
    counts = fleet.log_counts()
    verdict.details["Log lines"] = counts
    for name, events in LOG_COUNTERS.items():
        verdict.counters[name] = sum(
            count for line, count in counts.items() if line.endswith(events)
        )


def judge_pauses(verdict: Verdict, faults: Sequence[Fault]) -> None:
    """A worker that stood still longer than its lease must have been fenced at least once."""
    paused = any(f.plan.kind is Kind.WORKER_PAUSE and f.at is not None for f in faults)
    if paused and not verdict.counters["attempt fenced"]:
        verdict.missing.append("attempt fenced")
