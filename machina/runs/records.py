"""The records of runs in the store: every change is one conditional update that may be repeated.

The conditions are the reliability of the system: a run changes hands only from `scheduled`, and
only the holder of its current attempt ends it or gives it back. Doing it twice is doing it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from machina.ids import RunId
from machina.runs.run import FINAL, Checkpoint, Outcome, Run, RunStatus
from machina.store.base import Backend, Query, Sort

_FINAL = [str(status) for status in FINAL]


class RunRecords:
    """The collection of runs. Every call raises `StoreDown` when the store does not answer."""

    def __init__(self, backend: Backend) -> None:
        self._runs = backend.collection("runs")

    async def insert(self, run: Run) -> None:
        """Adds a run. Raises `Duplicate` when its idempotency key is taken."""
        await self._runs.insert(run.to_record())

    async def get(self, run_id: str) -> Run | None:
        record = await self._runs.get(run_id)
        return None if record is None else Run.from_record(record)

    async def by_idempotency(self, idempotency: str) -> Run | None:
        """The run that an idempotency key made."""
        return _first(await self.find({"idempotency": idempotency}, limit=1))

    async def find(
        self, query: Query, *, sort: Sort = (), skip: int = 0, limit: int | None = None
    ) -> list[Run]:
        records = await self._runs.find(query, sort=sort, skip=skip, limit=limit)
        return [Run.from_record(record) for record in records]

    async def count(self, query: Query) -> int:
        return await self._runs.count(query)

    async def last_of(self, project: str, target_ids: Sequence[str]) -> dict[str, datetime]:
        """When each of these agents or workflows was last asked to run; never is left out."""
        last: dict[str, datetime] = {}
        for target_id in target_ids:
            newest = await self._runs.find(
                {"project": project, "target_id": target_id},
                sort=(("created", -1),),
                limit=1,
                fields=("created",),
            )
            if newest:
                last[target_id] = newest[0]["created"]
        return last

    async def claim(self, run_id: RunId, holder: str, now: datetime) -> Run | None:
        """Makes `holder` the one that executes or closes the run: the next attempt is its own.

        None when the run is not waiting: somebody else has it, or it has ended.
        """
        change: dict[str, Any] = {
            "$set": {"status": str(RunStatus.RUNNING), "worker": holder},
            "$inc": {"attempt": 1},
        }
        waiting = {"_id": run_id, "status": str(RunStatus.SCHEDULED)}
        first = {"$set": change["$set"] | {"started": now}, "$inc": change["$inc"]}
        return await self._change(waiting | {"started": None}, first) or await self._change(
            waiting | {"started": {"$ne": None}}, change
        )

    async def claim_repair(self, run: Run, holder: str) -> Run | None:
        """Takes a finished run whose log is damaged, to publish its end again as a new attempt."""
        return await self._change(
            {"_id": run.id, "attempt": run.attempt, "status": {"$in": _FINAL}},
            {"$set": {"worker": holder, "published": False}, "$inc": {"attempt": 1}},
        )

    async def hand_back(self, run: Run, wake_at: datetime, *, spent: bool) -> bool:
        """Returns a running attempt to the queue; `spent` when it died or failed."""
        changed = await self._change(
            _held(run),
            {
                "$set": {
                    "status": str(RunStatus.SCHEDULED),
                    "worker": None,
                    "wake_at": wake_at,
                    "wakes": 0,
                },
                "$inc": {"attempts_spent": int(spent)},
            },
        )
        return changed is not None

    async def decide(self, run: Run, outcome: Outcome, now: datetime) -> Run | None:
        """Ends the run, once: None when this attempt does not hold it any more.

        Safe to repeat after an answer that was lost: the same attempt's own decision is returned.
        """
        end = {
            "status": str(outcome.status),
            "outcome": outcome.to_record(),
            "finished": now,
            "checkpoint": None,
        }
        decided = await self._change(_held(run), {"$set": end | _progress(run)})
        if decided is not None:
            return decided
        current = await self.get(run.id)
        mine = current is not None and current.is_final and current.attempt == run.attempt
        return current if mine else None

    async def abandon(self, run: Run, outcome: Outcome, now: datetime) -> None:
        """Ends a run that never reached the queue, and frees its idempotency key."""
        await self._change(
            {"_id": run.id, "attempt": 0, "status": str(RunStatus.SCHEDULED)},
            {
                "$set": {
                    "status": str(outcome.status),
                    "outcome": outcome.to_record(),
                    "finished": now,
                    "published": True,  # no caller knows the run: it has no log to end
                },
                "$unset": {"idempotency": ""},
            },
        )

    async def mark_published(self, run: Run) -> None:
        """Notes that the terminal event is in the log."""
        await self._change({"_id": run.id, "attempt": run.attempt}, {"$set": {"published": True}})

    async def request_cancel(self, run_id: RunId) -> Run | None:
        """Asks the holder to stop; None when the run has ended."""
        live = [str(RunStatus.SCHEDULED), str(RunStatus.RUNNING)]
        return await self._change(
            {"_id": run_id, "status": {"$in": live}}, {"$set": {"cancel_requested": True}}
        )

    async def save_progress(self, run: Run, checkpoint: Checkpoint | None) -> bool:
        """Keeps what a new attempt goes on from, and the progress that the API shows.

        False when this attempt is no longer the run's.
        """
        progress = _progress(run)
        if checkpoint is not None:
            progress["checkpoint"] = checkpoint.to_record()
        return await self._change(_held(run), {"$set": progress}) is not None

    async def postpone_wake(self, run: Run, wake_at: datetime) -> bool:
        """Claims the right to send one more wake-up: one of several reapers wins."""
        changed = await self._change(
            {"_id": run.id, "status": str(RunStatus.SCHEDULED), "wakes": run.wakes},
            {"$set": {"wake_at": wake_at}, "$inc": {"wakes": 1}},
        )
        return changed is not None

    async def cancelled_of(self, holder: str) -> list[RunId]:
        """Runs this worker holds that somebody asked to cancel; covers a signal that was lost."""
        query = {"worker": holder, "status": str(RunStatus.RUNNING), "cancel_requested": True}
        return [run.id for run in await self.find(query)]

    async def _change(self, query: Query, change: Mapping[str, Mapping[str, Any]]) -> Run | None:
        record = await self._runs.find_and_update(query, change)
        return None if record is None else Run.from_record(record)


def _held(run: Run) -> dict[str, Any]:
    return {"_id": run.id, "attempt": run.attempt, "status": str(RunStatus.RUNNING)}


def _progress(run: Run) -> dict[str, Any]:
    return {
        "steps": [dict(step) for step in run.steps],
        "total_workflows": run.total_workflows,
        "thread_reserved": run.thread_reserved,
        "tokens": dict(run.tokens),
        "tasks": list(run.tasks),
        "may_have_repeated": list(run.may_have_repeated),
    }


def _first(runs: list[Run]) -> Run | None:
    return runs[0] if runs else None
