"""One API is killed, every client of the others leaves, and all come back within a second."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.chaos.aftermath import ask_again, leaks, list_runs
from bench.chaos.client import Client, Place
from bench.chaos.figures import spread
from bench.chaos.fleet import Fleet, open_fleet
from bench.chaos.load import Shape, count_logs
from bench.chaos.plan import FaultPlan, Habits, Kind, RunPlan, client_random
from bench.chaos.seen import Fault, Watch
from bench.chaos.verdict import Verdict, convict
from bench.chaos.waiting import until

RAMP_SECONDS: Final = 10.0
WITHIN_SECONDS: Final = 1.0
GOAL_SECONDS: Final = 5.0
TOKENS: Final = 40
DELAY_MS: Final = 1_000
VICTIM: Final = 1
HABITS: Final = Habits(drop_share=0.0, cancel_share=0.0, run_seconds=180.0)
ALL_THERE_SECONDS: Final = 60.0


async def run_stampede(seed: int, streams: int, shape: Shape, verdict: Verdict, home: Path) -> None:
    """Fills the verdict with how long it took until all were streaming again.

    Raises:
        TimeoutError: the streams did not even begin.
    """
    environ = shape.environ(streams)
    async with open_fleet(home, apis=shape.apis, workers=shape.workers, environ=environ) as fleet:
        place = Place(fleet.urls, fleet.dev.admin_key)
        fault = Fault(FaultPlan(0, Kind.API_KILL, RAMP_SECONDS, VICTIM))
        watches = await _stampede(seed, streams, fleet, place, fault)
        await fleet.wait_ready()
        leaked = await leaks(place)
        await ask_again(place, watches)
        rows = await list_runs(place)
        count_logs(verdict, fleet)
        convict(verdict, watches, [fault], rows, leaked)
        _measure(verdict, watches, fault.at or 0.0)


async def _stampede(
    seed: int, streams: int, fleet: Fleet, place: Place, fault: Fault
) -> list[Watch]:
    watches = [
        Watch(RunPlan(f"stampede-{seed}-{number}", TOKENS, DELAY_MS), began=time.monotonic())
        for number in range(streams)
    ]
    async with place.session(HABITS.silence_seconds) as session:
        clients = [
            Client(place, session, HABITS, client_random(seed, number)) for number in range(streams)
        ]
        async with asyncio.TaskGroup() as group:
            first = [
                group.create_task(_first_visit(client, watch, RAMP_SECONDS * number / streams))
                for number, (client, watch) in enumerate(zip(clients, watches, strict=True))
            ]
            await until(lambda: _all_begun(watches), seconds=ALL_THERE_SECONDS)
            await _strike(fleet, place, fault)
            for visit, watch in zip(first, watches, strict=True):
                if watch.connections[0].instance != fault.instance:  # the others are cut
                    visit.cancel()
        dice = random.Random(f"{seed}:stampede")
        async with asyncio.TaskGroup() as group:
            for client, watch in zip(clients, watches, strict=True):
                away = dice.uniform(0, WITHIN_SECONDS)
                group.create_task(_come_back(client, watch, away))
    return watches


async def _all_begun(watches: Sequence[Watch]) -> bool:
    return all(watch.lines for watch in watches)


async def _first_visit(client: Client, watch: Watch, after_seconds: float) -> None:
    await asyncio.sleep(after_seconds)
    watch.began = time.monotonic()
    async for _ in client.read(watch, client.new_connection(watch)):
        pass


async def _strike(fleet: Fleet, place: Place, fault: Fault) -> None:
    slot = fleet.part("api")[VICTIM % len(fleet.ports)]
    pid = await asyncio.to_thread(fleet.pid, slot)
    if pid is None:
        return
    fault.instance, fault.streams = slot.number, place.open_on(slot.number)
    fault.at = fault.over = time.monotonic()
    os.kill(pid, signal.SIGKILL)


async def _come_back(client: Client, watch: Watch, after_seconds: float) -> None:
    await asyncio.sleep(after_seconds)
    if watch.ended is None:
        await client.watch(watch.plan, watch)


def _measure(verdict: Verdict, watches: Sequence[Watch], at: float) -> None:
    answered, heard, own = [], [], []
    for watch in watches:
        again = [c for c in watch.connections[1:] if c.status == 200 and c.answered is not None]
        if again:
            answered.append((again[0].answered or at) - at)
            own.append((again[0].answered or at) - watch.connections[1].opened)
            heard.append(min((c.first_event for c in again if c.first_event), default=at) - at)
    for name, seconds in (
        ("from the blow to headers", answered),
        ("from the blow to the next event", heard),
        ("from a client's first try to headers", own),
    ):
        found = spread(seconds)
        verdict.figures[name] = asdict(found) if found else None
    verdict.totals["came_back"] = len(answered)
    verdict.limits["all streaming again"] = (max(answered, default=None), GOAL_SECONDS)
    if len(answered) < len(watches):
        verdict.missing.append(f"{len(watches) - len(answered)} clients had nothing to return to")
