"""Fires one schedule: takes its due time, starts the run, notes it. Safe to stop anywhere.

Before the due time is taken nothing has happened; after it, the row says what is owed, and any
process may complete it: the run's key is the due time, so it is recorded once however often it is
submitted, and the row counts it once because the due time is noted by the change that clears it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from machina.errors import DefinitionMissing, QueueDown
from machina.observability.metrics import ScheduleMetrics
from machina.runs.planned import CLAIM_SECONDS, Hindrance, PlannedRuns
from machina.runs.run import Run
from machina.scheduler.cron import load_zone
from machina.scheduler.reconcile import Policy, Reconciler
from machina.scheduler.timing import due_of, first_time
from machina.store.schedules import Schedule, ScheduleStore

log = structlog.get_logger(__name__)

POSTPONE_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 300.0


class Firing:
    """Fires schedules in one process."""

    def __init__(
        self,
        schedules: ScheduleStore,
        planned: PlannedRuns,
        reconciler: Reconciler,
        policy: Policy,
        metrics: ScheduleMetrics,
        clock: Callable[[], Awaitable[datetime]],
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._schedules = schedules
        self._planned = planned
        self._reconciler = reconciler
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._jitter = jitter

    async def attend(self, schedule: Schedule) -> None:
        """Does what a row needs whose time to be looked at has come.

        Raises:
            StoreDown: the store is away; the row is as it was, or its due time is taken.
            QueueDown: the queue is; the due time is taken and is tried again later.
        """
        if schedule.timezone is not None:
            await asyncio.to_thread(load_zone, schedule.timezone)  # reads a file the first time
        now = await self._clock()
        if schedule.firing is not None:
            await self._take_over(schedule, now)
        elif not schedule.fires:
            await self._schedules.change(schedule, next_at=None, wake_at=None)
        elif schedule.next_at is None:
            first = first_time(schedule, now, self._policy.min_seconds)
            await self._schedules.change(schedule, next_at=first, wake_at=first)
        elif schedule.next_at > now:
            await self._schedules.change(schedule, wake_at=schedule.next_at)
        else:
            await self._take(schedule, now)

    async def _take(self, schedule: Schedule, now: datetime) -> None:
        agent = await self._schedules.agent(schedule.agent_id)
        if agent is None:
            await self._schedules.remove(schedule)
            return
        if not self._reconciler.is_current(agent, schedule):
            rows = await self._schedules.by_agent([schedule.agent_id])
            await self._reconciler.settle(agent, now, rows.get(schedule.agent_id, ()))
            return
        policy = self._policy
        due = due_of(schedule, now, policy.min_seconds, policy.catch_up_seconds)
        if due.is_stale:
            passed = due.missed + 1
            if await self._schedules.change(
                schedule,
                next_at=due.next_at,
                wake_at=due.next_at,
                missed=schedule.missed + passed,
            ):
                self._metrics.ticks.labels("missed").inc(passed)
                log.warning("schedule.missed", schedule=schedule.name, due=str(due.at))
            return
        claimed = await self._schedules.change(
            schedule,
            firing=due.at,
            next_at=due.next_at,
            wake_at=now + timedelta(seconds=CLAIM_SECONDS),
            done=schedule.once,
            missed=schedule.missed + due.missed,
        )
        if claimed is not None:  # else another process has it
            self._metrics.ticks.labels("missed").inc(due.missed)
            await self._carry_out(claimed, now)

    async def _take_over(self, schedule: Schedule, now: datetime) -> None:
        """Completes what a process began that is gone, or could not complete itself."""
        claimed = await self._schedules.change(
            schedule, wake_at=now + timedelta(seconds=CLAIM_SECONDS)
        )
        if claimed is None:
            return
        run = await self._planned.find(claimed)
        if run is None:
            await self._carry_out(claimed, now)
        else:
            await self._note(claimed, run, now)

    async def _carry_out(self, claimed: Schedule, now: datetime) -> None:
        hindrance = await self._planned.hindrance(claimed)
        if hindrance is not None and (claimed.once or hindrance is Hindrance.FIRING):
            await self._postpone(claimed, now)
            return
        if hindrance is not None:
            await self._give_up(claimed, now, "skipped", skipped=claimed.skipped + 1)
            return
        try:
            run = await self._planned.submit(claimed)
        except DefinitionMissing as missing:
            log.warning("schedule.target_missing", schedule=claimed.name, error=missing.message)
            await self._give_up(claimed, now, "failed", last_error=missing.message)
        except QueueDown as down:
            pause = min(CLAIM_SECONDS * 2.0 ** min(claimed.tries, 10), MAX_RETRY_SECONDS)
            await self._schedules.change(
                claimed,
                wake_at=now + timedelta(seconds=pause),
                tries=claimed.tries + 1,
                last_error=down.message,
            )
            raise
        else:
            await self._note(claimed, run, now)

    async def _note(self, claimed: Schedule, run: Run, now: datetime) -> None:
        if await self._planned.note(claimed, run, now) and claimed.firing is not None:
            late = max(0.0, (run.created - claimed.firing).total_seconds())
            self._metrics.ticks.labels("fired").inc()
            self._metrics.late_seconds.observe(late)
            log.info(
                "schedule.fired", schedule=claimed.name, run_id=run.id, late_seconds=round(late, 3)
            )

    async def _postpone(self, claimed: Schedule, now: datetime) -> None:
        """Puts the due time back, to be taken again in a moment that others do not share."""
        pause = timedelta(seconds=POSTPONE_SECONDS * (0.2 + self._jitter()))
        await self._schedules.change(
            claimed, firing=None, next_at=claimed.firing, done=False, wake_at=now + pause
        )

    async def _give_up(self, claimed: Schedule, now: datetime, why: str, **values: object) -> None:
        changed = await self._schedules.change(
            claimed, firing=None, tries=0, wake_at=claimed.wake_after_firing(now), **values
        )
        if changed is not None:
            self._metrics.ticks.labels(why).inc()
