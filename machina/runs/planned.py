"""The run that a schedule asks for, by a due time or by hand: what it is, and when it may begin.

Used by the schedulers and by the API, so that both go the same way: take a due time, see whether
the run before is over, record the run under the due time's key, note it in the row.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from machina.errors import Conflict, DefinitionMissing, NotFound, QueueDown
from machina.queue.names import Queue
from machina.runs.lifecycle import RunRequest, Runs
from machina.runs.run import Run
from machina.store.base import Record
from machina.store.definitions import DefinitionStore
from machina.store.schedules import Schedule, ScheduleStore

PRINCIPAL: Final = "scheduler"
"""In whose name scheduled runs are recorded; administrators see them."""
CLAIM_SECONDS: Final = 10
"""After this time another process completes what the one that took a due time did not."""


class ScheduleBusy(Conflict):
    """The run before is not over, and the schedule does not allow two at once."""

    code, title = "schedule_busy", "Schedule is busy"


class Hindrance(StrEnum):
    """What keeps a due time from starting its run."""

    RUNNING = "running"
    FIRING = "firing"
    """Another schedule of the same target is starting it at this moment."""


class PlannedRuns:
    """Starts the runs of schedules. Every call raises `StoreDown` when the store is away."""

    def __init__(self, schedules: ScheduleStore, definitions: DefinitionStore, runs: Runs) -> None:
        self._schedules = schedules
        self._definitions = definitions
        self._runs = runs

    async def hindrance(self, claimed: Schedule) -> Hindrance | None:
        """What stands in the way of a schedule whose due time was taken just now.

        Two schedules of one target that are taken at once both see the other, so neither starts.
        """
        if claimed.allow_overlap:
            return None
        for schedule in await self._schedules.of_target(claimed):
            if schedule.id != claimed.id and schedule.firing is not None:
                return Hindrance.FIRING
            if schedule.last_run_id is not None and await self._is_live(schedule):
                return Hindrance.RUNNING
        return None

    async def find(self, claimed: Schedule) -> Run | None:
        """The run of the due time that was taken, if it is recorded."""
        return await self._runs.find_joined(_key(claimed), None)

    async def submit(self, claimed: Schedule) -> Run:
        """Records and queues the run of the due time that was taken; the same one when repeated.

        Raises:
            DefinitionMissing: the target is not installed.
            QueueDown: the queue refused; nothing is left of the run but its record.
        """
        target = await self._find_target(claimed)
        run, _ = await self._runs.submit(
            RunRequest(
                project=claimed.project,
                principal=PRINCIPAL,
                kind=claimed.type,
                target_id=str(target["_id"]),
                target_name=str(target["name"]),
                queue=Queue.LOW,
                inputs=claimed.payload,
                idempotency=_key(claimed),
            )
        )
        return run

    async def note(self, claimed: Schedule, run: Run, now: datetime) -> bool:
        """Notes in the row that the due time has its run. False: somebody else has noted it."""
        while True:
            current = await self._schedules.get(claimed.id)
            if current is None or current.firing is None or current.firing != claimed.firing:
                return False
            changed = await self._schedules.change(
                current,
                firing=None,
                tries=0,
                wake_at=current.wake_after_firing(now),
                last_tick=claimed.firing,
                last_run_id=run.id,
                last_error=None,
                fired=current.fired + 1,
            )
            if changed is not None:
                return True

    async def start_by_hand(self, schedule: Schedule, now: datetime) -> Run:
        """Starts the run now, beside the due times; works for paused and inactive schedules too.

        Raises:
            ScheduleBusy: the run before is not over, or another is starting at this moment.
            DefinitionMissing: the target is not installed.
            QueueDown: the queue refused.
        """
        begun = schedule.firing is not None
        if begun and schedule.wake_at is not None and schedule.wake_at > now:
            raise ScheduleBusy(f"The schedule '{schedule.name}' is starting a run; try again.")
        claimed = await self._schedules.change(
            schedule,
            firing=schedule.firing or now,
            wake_at=now + timedelta(seconds=CLAIM_SECONDS),
        )
        if claimed is None:
            raise ScheduleBusy(f"The schedule '{schedule.name}' is changing; try again.")
        recorded = await self.find(claimed) if begun else None
        if recorded is not None:  # somebody died before it was noted
            await self.note(claimed, recorded, now)
            return recorded
        try:
            if await self.hindrance(claimed) is not None:
                raise ScheduleBusy(
                    f"The last run of '{claimed.type}' '{claimed.target}' is not over; wait for "
                    "its end, cancel it, or let the schedule overlap with 'allow_overlap: true'."
                )
            run = await self.submit(claimed)
        except (ScheduleBusy, DefinitionMissing, QueueDown):
            await self._schedules.change(
                claimed, firing=None, wake_at=claimed.wake_after_firing(now)
            )
            raise
        await self.note(claimed, run, now)
        return run

    async def _is_live(self, schedule: Schedule) -> bool:
        try:
            run = await self._runs.get(
                schedule.last_run_id or "", project=schedule.project, principal=None
            )
        except NotFound:
            return False
        return not run.is_final

    async def _find_target(self, schedule: Schedule) -> Record:
        kind, name = schedule.type, schedule.target
        found = await self._definitions.get(schedule.project, kind, name)
        if found is None:
            raise DefinitionMissing(
                f"The schedule '{schedule.name}' starts the {kind} '{name}', which is not "
                "installed; install it, or correct the schedule's target."
            )
        return found


def _key(claimed: Schedule) -> str:
    """The idempotency key of a due time: whoever fires it, and however often, makes one run."""
    assert claimed.firing is not None  # noqa: S101  # callers took it
    text = f"schedule\n{claimed.id}\n{claimed.firing.isoformat(timespec='milliseconds')}"
    return hashlib.sha256(text.encode()).hexdigest()
