"""The scheduler: looks at the schedules whose time has come, on every instance at once.

There is no leader. Whoever takes a due time first fires it; the others find it taken.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from machina.errors import MachinaError, QueueDown, StoreDown
from machina.observability.metrics import Metrics, make_metrics
from machina.resources import Resources
from machina.runs.lifecycle import Runs
from machina.runs.planned import PlannedRuns
from machina.scheduler.firing import Firing
from machina.scheduler.reconcile import Policy, Reconciler
from machina.settings import Settings
from machina.store.definitions import DefinitionStore
from machina.store.schedules import Schedule, ScheduleStore

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 2.0
"""Longest sleep: how soon a new agent or a resumed schedule is noticed."""
AWAY_SECONDS: Final = 1.0
LONGEST_AWAY_SECONDS: Final = 15.0
BATCH: Final = 100
TOGETHER: Final = 8
"""Schedules fired at once, so that many due at noon are not late, and the store is not flooded."""
BROKEN_SECONDS: Final = 60
"""How long a row that nobody understands is left alone."""


class Scheduler:
    """The loop of one process."""

    def __init__(
        self,
        schedules: ScheduleStore,
        definitions: DefinitionStore,
        runs: Runs,
        policy: Policy,
        clock: Callable[[], Awaitable[datetime]],
        *,
        metrics: Metrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        shuffle: Callable[[list[Schedule]], None] = random.shuffle,
    ) -> None:
        self._schedules = schedules
        self._shuffle = shuffle
        self._clock = clock
        self._monotonic = monotonic
        self._reconciler = Reconciler(schedules, policy, monotonic=monotonic)
        self._firing = Firing(
            schedules,
            PlannedRuns(schedules, definitions, runs),
            self._reconciler,
            policy,
            (metrics or make_metrics()).schedules,
            clock,
        )
        self._looked_at: float | None = None

    async def run(self) -> None:
        """Fires until cancelled; waits while store or queue are away."""
        away = AWAY_SECONDS
        while True:
            try:
                pause = await self.tick()
            except (StoreDown, QueueDown) as down:
                log.warning("scheduler.waiting", code=down.code, error=down.message)
                pause, away = away, min(2 * away, LONGEST_AWAY_SECONDS)
            else:
                away = AWAY_SECONDS
            await asyncio.sleep(pause)

    async def tick(self) -> float:
        """One look: what changed, then what is due. Seconds until the next look is needed.

        Raises:
            StoreDown: the store is away.
            QueueDown: the queue is.
        """
        now = await self._clock()
        looked = self._monotonic()
        if self._looked_at is None or looked - self._looked_at >= LOOK_SECONDS:
            await self._reconciler.reconcile(now)
            self._looked_at = looked
        waiting = await self._schedules.waiting(BATCH)
        due = [row for row in waiting if row.wake_at is not None and row.wake_at <= now]
        self._shuffle(due)  # else the processes would all reach for the same ones
        for start in range(0, len(due), TOGETHER):
            await self._attend_all(due[start : start + TOGETHER])
        if due:
            return 0.0
        ahead = (waiting[0].wake_at - now).total_seconds() if waiting and waiting[0].wake_at else 60
        until_look = LOOK_SECONDS - (self._monotonic() - self._looked_at)
        return max(0.0, min(ahead, until_look))

    async def _attend_all(self, due: list[Schedule]) -> None:
        outcomes = await asyncio.gather(*map(self._attend, due), return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _attend(self, schedule: Schedule) -> None:
        try:
            await self._firing.attend(schedule)
        except (StoreDown, QueueDown):
            raise
        except Exception as broken:  # noqa: BLE001  # one row must not hold up all the others
            # From the loop: a trace takes its time to be written.
            asyncio.get_running_loop().call_soon(
                partial(log.error, "schedule.broken", schedule=schedule.name, exc_info=broken)
            )
            message = broken.message if isinstance(broken, MachinaError) else type(broken).__name__
            await self._set_aside(schedule, message)

    async def _set_aside(self, schedule: Schedule, message: str) -> None:
        """Shows why a row broke and leaves it alone for a while, its due time taken or not."""
        row = await self._schedules.get(schedule.id)
        if row is None or row.revision > schedule.revision + 1:  # others went on with it
            return
        later = await self._clock() + timedelta(seconds=BROKEN_SECONDS)
        await self._schedules.change(row, wake_at=later, last_error=message)


def make_scheduler(resources: Resources) -> Scheduler:
    """The scheduler of a process that opened these resources; the owner supervises its `run`."""
    return Scheduler(
        resources.store.schedules,
        resources.store.definitions,
        resources.runs,
        make_policy(resources.settings),
        resources.store.now,
        metrics=resources.metrics,
    )


def make_policy(settings: Settings) -> Policy:
    """What the settings allow schedules."""
    return Policy(
        start_paused=settings.schedules_start_paused,
        one_shots=settings.one_shots,
        min_seconds=settings.schedule_min_seconds,
        catch_up_seconds=settings.schedule_catch_up_seconds,
    )
