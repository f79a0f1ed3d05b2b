"""Fires the planned faults by signal and notes what became of each."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from bench.chaos.client import Place
from bench.chaos.fleet import Fleet, Slot, age_seconds, is_gone
from bench.chaos.plan import FaultPlan, Kind
from bench.chaos.seen import Fault
from bench.chaos.waiting import until

YOUNGEST_SECONDS: Final = 3.0
"""`dev` takes a child that ends twice within two seconds for one that cannot start, and stops."""
SETTLED_SECONDS: Final = 8.0
"""Before a process has set itself up, SIGTERM just ends it: that tests nothing."""
PATIENCE_SECONDS: Final = 30.0
EXIT_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02
SIGNALS: Final = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


class Injector:
    """Hurts one fleet. What it stopped goes on again, whatever happens."""

    def __init__(self, fleet: Fleet, place: Place, plans: Sequence[FaultPlan]) -> None:
        self.faults = [Fault(plan) for plan in plans]
        self._fleet = fleet
        self._place = place
        self._stopped: set[int] = set()
        self._doomed: set[int] = set()

    async def run(self) -> None:
        """Fires every fault at its time, or as long after the one before; returns after the last.

        Where a fault has to wait for somebody to hit, all later ones move with it: they would
        otherwise come at once.
        """
        start = time.monotonic()
        try:
            async with asyncio.TaskGroup() as after_effects:
                for fault in self.faults:
                    await asyncio.sleep(max(0.0, start + fault.plan.due - time.monotonic()))
                    slot, pid = await self._choose(fault)
                    start = max(start, time.monotonic() - fault.plan.due)
                    if pid is not None:
                        self._fire(fault, slot, pid)
                        after_effects.create_task(self._follow(fault, slot, pid))
        finally:
            for pid in list(self._stopped):
                self._wake(pid)

    async def _choose(self, fault: Fault) -> tuple[Slot, int | None]:
        """The process to hit: up for a while, not hurt already; an API with viewers, not the last.

        Where no API is left there is nothing to learn: clients wait until one is back.
        """
        slots = self._fleet.part(fault.plan.kind.part)
        first = fault.plan.target % len(slots)
        order = [*slots[first:], *slots[:first]]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for slot in order:
                pid = await asyncio.to_thread(self._fleet.pid, slot)
                least = SETTLED_SECONDS if _manner(fault) == "term" else YOUNGEST_SECONDS
                if pid is None or not self._is_sound(pid) or age_seconds(pid) < least:
                    continue
                if slot.part != "api" or await self._can_spare(slot):
                    return slot, pid
            await asyncio.sleep(POLL_SECONDS)
        fault.note = f"no {fault.plan.kind.part} to hit within {PATIENCE_SECONDS:g} s"
        return slots[first], None

    def _is_sound(self, pid: int) -> bool:
        return pid not in self._stopped | self._doomed and age_seconds(pid) >= YOUNGEST_SECONDS

    async def _can_spare(self, slot: Slot) -> bool:
        """Whether clients are on this API and another one that is sound serves some, too."""
        others = [other for other in self._fleet.part("api") if other is not slot]
        serving = [other for other in others if self._place.open_on(other.number) > 0]
        pids = [await asyncio.to_thread(self._fleet.pid, other) for other in serving]
        sound = [pid for pid in pids if pid is not None and self._is_sound(pid)]
        return self._place.open_on(slot.number) > 0 and (bool(sound) or not others)

    def _fire(self, fault: Fault, slot: Slot, pid: int) -> None:
        fault.note = f"{slot.name} pid {pid}"
        if slot.part == "api":
            fault.instance = slot.number
            fault.streams = self._place.open_on(slot.number)
        manner = _manner(fault)
        (self._doomed if manner in SIGNALS else self._stopped).add(pid)
        fault.at = time.monotonic()
        os.kill(pid, SIGNALS.get(manner, signal.SIGSTOP))

    async def _follow(self, fault: Fault, slot: Slot, pid: int) -> None:
        if pid in self._stopped:
            await asyncio.sleep(fault.plan.seconds)
            self._wake(pid)
            fault.over = time.monotonic()
            return
        await self._see_it_end(fault, pid)
        if fault.plan.kind in (Kind.API_TERM, Kind.WORKER_TERM) and slot.command:
            await until(lambda: _has_exit(slot, pid), seconds=EXIT_SECONDS)
            fault.exit_code = slot.exits[pid]

    async def _see_it_end(self, fault: Fault, pid: int) -> None:
        began = fault.at or 0.0
        while not is_gone(pid):
            if time.monotonic() - began > EXIT_SECONDS:
                fault.exit_code, fault.note = -1, f"{fault.note}: still there after the signal"
                os.kill(pid, signal.SIGKILL)
                break
            await asyncio.sleep(POLL_SECONDS)
        fault.over = time.monotonic()
        fault.exit_seconds = round(fault.over - began, 3)

    def _wake(self, pid: int) -> None:
        self._stopped.discard(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _manner(fault: Fault) -> str:
    return fault.plan.kind.partition("-")[2]


async def _has_exit(slot: Slot, pid: int) -> bool:
    return pid in slot.exits
