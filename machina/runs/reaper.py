"""Finds runs that nobody holds, wakes or ended, and sends each on its way. Runs in every process.

One process at a time is elected and looks twice a second; the others watch slowly, so that the next
one has its observations ready. A worker is only believed dead when the store's clock says that its
lease is over *and* this process saw the same beat for a whole lease while the store answered
throughout: neither an outage of the store nor a jump of a clock makes orphans.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from machina.errors import AttemptsExhausted, MachinaError, StoreDown
from machina.ids import RunId
from machina.runs.attempts import Attempts
from machina.runs.closing import failure
from machina.runs.run import FINAL, Outcome, Run, RunStatus
from machina.runs.viewing import overdue
from machina.store.leases import LeaseStore

log = structlog.get_logger(__name__)

ROLE: Final = "reaper"
TICK_SECONDS: Final = 0.5
WATCH_SECONDS: Final = 1.0
SWEEP_EVERY: Final = 4
"""Ticks between looks for what no lease tells: waiting, overdue and unpublished runs."""
BLIND_SECONDS: Final = 2.0
"""A pause between two looks that makes earlier ones worthless: this process itself stood still."""
BATCH: Final = 100
TOGETHER: Final = 32
"""Reclaims under way at once."""
UNPUBLISHED_AFTER: Final = timedelta(seconds=5)
HOLDERS_TIME: Final = timedelta(seconds=30)
"""How long a living holder has to publish an end before the reaper does."""
MAX_WAKE_SECONDS: Final = 60


class Reaper:
    """The loop of one process. `holder` names it in claims and in the election."""

    def __init__(
        self,
        attempts: Attempts,
        leases: LeaseStore,
        *,
        holder: Callable[[], str],
        lease_seconds: float,
        max_attempts: int,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._attempts = attempts
        self._records = attempts.records
        self._leases = leases
        self._holder = holder
        self._lease = lease_seconds
        self._max_attempts = max_attempts
        self._monotonic = monotonic
        self._jitter = jitter
        self._beats: dict[str, tuple[int, float]] = {}
        self._orphans: dict[tuple[RunId, int], float] = {}
        self._work: dict[RunId, asyncio.Task[None]] = {}
        self._looked_at = monotonic()
        self._ticks = 0

    async def run(self) -> None:
        """Ticks until cancelled."""
        try:
            while True:
                elected = False
                try:
                    elected = await self.tick()
                except StoreDown as down:
                    self._forget()
                    log.warning("reaper.store_down", error=down.message)
                pause = TICK_SECONDS if elected else WATCH_SECONDS * (1 + self._jitter() / 2)
                await asyncio.sleep(pause)
        finally:
            for task in self._work.values():
                task.cancel()

    async def settle(self) -> None:
        """Waits for the ends that are being published."""
        while self._work:
            await asyncio.wait(list(self._work.values()))

    async def tick(self) -> bool:
        """One look at the leases; the elected process acts on what it sees. True when elected."""
        now = await self._attempts.clock()
        dead, live = await self._observe(now)
        elected = await self._leases.elect(
            ROLE, self._holder(), silent_seconds=2 * TICK_SECONDS + 1
        )
        if not elected:
            return False
        for worker in dead:
            await self._bury(worker)
        self._ticks += 1
        if self._ticks % SWEEP_EVERY == 0:
            await self._reclaim_orphans(live)
            await self._wake_waiting(now)
            await self._close_overdue(now)
            await self._publish_ends(now, live)
        return True

    async def _observe(self, now: datetime) -> tuple[list[str], set[str]]:
        rows = await self._leases.workers()
        seen_at = self._monotonic()
        if seen_at - self._looked_at > BLIND_SECONDS:
            self._forget()
        self._looked_at = seen_at
        before, self._beats = self._beats, {}
        dead = []
        for row in rows:
            beat, since = before.get(row.worker, (row.beat, seen_at))
            if beat != row.beat:
                since = seen_at
            self._beats[row.worker] = (row.beat, since)
            over = (now - row.renewed).total_seconds() > self._lease
            if over and seen_at - since >= self._lease:
                dead.append(row.worker)
        return dead, {row.worker for row in rows} - set(dead)

    def _forget(self) -> None:
        """What was seen before an outage or a standstill says nothing about what happened in it."""
        self._beats.clear()
        self._orphans.clear()

    async def _bury(self, worker: str) -> None:
        beat, _ = self._beats.pop(worker)
        if not await self._leases.bury(worker, beat):
            return  # it moved after all
        held = await self._records.find(
            {"worker": worker, "status": str(RunStatus.RUNNING)}, limit=10 * BATCH
        )
        self._attempts.metrics.buried.inc()
        log.warning("worker.buried", worker=worker, runs=len(held))
        await self._reclaim_all(held)

    async def _reclaim_orphans(self, live: set[str]) -> None:
        """Runs whose holder has no lease at all: a closer that died, a worker buried by halves."""
        query = {"status": str(RunStatus.RUNNING), "worker": {"$nin": sorted(live)}}
        seen_at = self._monotonic()
        before, self._orphans = self._orphans, {}
        orphaned = []
        for run in await self._records.find(query, limit=10 * BATCH):
            key = (run.id, run.attempt)
            since = before.get(key, seen_at)
            if seen_at - since >= self._lease:
                orphaned.append(run)
            else:
                self._orphans[key] = since
        await self._reclaim_all(orphaned)

    async def _reclaim_all(self, runs: Sequence[Run]) -> None:
        """Many at once: a worker may have held hundreds, and somebody watches each of them."""
        for start in range(0, len(runs), TOGETHER):
            await asyncio.gather(*(self._reclaim(run) for run in runs[start : start + TOGETHER]))

    async def _reclaim(self, run: Run) -> None:
        spent = run.attempts_spent + 1
        if not await self._attempts.hand_back(run, spent=True, wake=False):
            return
        self._attempts.metrics.reclaimed.inc()
        log.warning("attempt.reclaimed", run_id=run.id, attempt=run.attempt, spent=spent)
        if spent >= self._max_attempts:
            self._close(run, exhausted(run, spent))
        else:
            self._do(run.id, self._attempts.wake(run))

    async def _wake_waiting(self, now: datetime) -> None:
        query = {"status": str(RunStatus.SCHEDULED), "wake_at": {"$lt": now}}
        for run in await self._records.find(query, sort=[("wake_at", 1)], limit=BATCH):
            if run.attempts_spent >= self._max_attempts:
                self._close(run, exhausted(run, run.attempts_spent))
                continue
            pause = min(MAX_WAKE_SECONDS, 5 * 2 ** min(run.wakes + 1, 5))
            if await self._records.postpone_wake(run, now + timedelta(seconds=pause)):
                await self._attempts.wake(run)

    async def _close_overdue(self, now: datetime) -> None:
        late = {"started": None, "queue_deadline": {"$lt": now}}
        query = {
            "status": str(RunStatus.SCHEDULED),
            "$or": [late, {"cancel_requested": True}],
        }
        for run in await self._records.find(query, limit=BATCH):
            outcome = overdue(run, now)
            if outcome is not None:
                self._close(run, outcome)

    async def _publish_ends(self, now: datetime, live: set[str]) -> None:
        """Ends that were decided and never published: the holder is gone, or had no luck."""
        query = {
            "published": False,
            "status": {"$in": [str(status) for status in FINAL]},
            "finished": {"$lt": now - UNPUBLISHED_AFTER},
        }
        for run in await self._records.find(query, limit=BATCH):
            if run.worker not in live or (run.finished and run.finished < now - HOLDERS_TIME):
                self._do(run.id, self._attempts.repair(run, self._holder()))

    def _close(self, run: Run, outcome: Outcome) -> None:
        self._do(run.id, self._attempts.close(run.id, outcome, self._holder()))

    def _do(self, run_id: RunId, work: Coroutine[Any, Any, Any]) -> None:
        """Wakes a worker or publishes an end beside the ticks: Redis may take a while to answer."""
        if run_id in self._work or len(self._work) >= 10 * BATCH:
            work.close()
            return
        task = self._work[run_id] = asyncio.create_task(_logged(run_id, work))
        task.add_done_callback(lambda _: self._work.pop(run_id, None))


async def _logged(run_id: RunId, work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except MachinaError as error:  # the next sweep finds the run again
        log.warning("reaper.end_failed", run_id=run_id, code=error.code, error=error.message)


def exhausted(run: Run, spent: int) -> Outcome:
    """The end of a run whose every attempt died or failed."""
    return failure(
        AttemptsExhausted(
            f"The run was given up after {spent} attempts: each time the worker died or lost its "
            "connections. Look for 'attempt.reclaimed' with this run id in the workers' logs."
        )
    )
