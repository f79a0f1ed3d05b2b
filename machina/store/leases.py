"""Leases: one row per worker process, one per role that a single process may hold.

A row carries a beat that rises with every renewal. Whoever judges a row does so by the beat it saw:
a worker is buried, and a role taken over, only if the beat is still that one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from machina.errors import StoreDown
from machina.store.base import Backend, Change, Duplicate, Record

_WORKER: Final = "worker"
_ROLE: Final = "role"


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """A worker process that was alive at `renewed`, by the store's clock."""

    worker: str
    beat: int
    renewed: datetime
    registered: datetime
    info: Mapping[str, Any]
    """What it says about itself: queues, threads, sandbox level, version."""


class LeaseStore:
    """The leases of a deployment. Every call raises `StoreDown` when the store is away.

    One per process: it remembers which beats of roles it saw, and since when.
    """

    def __init__(
        self, backend: Backend, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._backend = backend
        self._leases = backend.collection("leases")
        self._monotonic = monotonic
        self._seen: dict[str, tuple[int, float]] = {}

    async def register(self, worker: str, info: Mapping[str, Any]) -> None:
        """Adds the row of a worker process, or starts it anew."""
        now = await self._backend.now()
        change: Change = {
            "$set": {"kind": _WORKER, "info": dict(info), "renewed": now},
            "$setOnInsert": {"registered": now},
            "$inc": {"beat": 1},
        }
        await self._leases.find_and_update({"_id": worker}, change, upsert=True)

    async def renew(self, worker: str) -> bool:
        """Says that the worker is alive. False: it was buried and holds nothing any more."""
        change: Change = {"$set": {"renewed": await self._backend.now()}, "$inc": {"beat": 1}}
        return await self._leases.find_and_update({"_id": worker}, change) is not None

    async def workers(self) -> list[WorkerLease]:
        """The rows of all workers, by id."""
        return [
            WorkerLease(row["_id"], row["beat"], row["renewed"], row["registered"], row["info"])
            for row in await self._leases.find({"kind": _WORKER})
        ]

    async def bury(self, worker: str, beat: int) -> bool:
        """Removes a worker's row, if its beat is still this one: what it held may be taken."""
        return await self._leases.delete({"_id": worker, "beat": beat}) == 1

    async def release(self, worker: str) -> None:
        """Removes a worker's own row, when it ends."""
        await self._leases.delete({"_id": worker})

    async def elect(self, role: str, holder: str, *, silent_seconds: float) -> bool:
        """Whether `holder` has the role now. Call it regularly: it renews, or watches for silence.

        The role is taken over from a holder whose beat this process saw unchanged for
        `silent_seconds`, during which the store answered throughout.
        """
        try:
            return await self._elect(f"{_ROLE}:{role}", holder, silent_seconds)
        except StoreDown:
            self._seen.pop(f"{_ROLE}:{role}", None)
            raise

    async def resign(self, role: str, holder: str) -> None:
        """Gives the role up, if `holder` has it; another need not wait for silence."""
        await self._leases.delete({"_id": f"{_ROLE}:{role}", "holder": holder})

    async def _elect(self, id: str, holder: str, silent_seconds: float) -> bool:
        row = await self._leases.get(id)
        if row is None:
            return await self._found(id, holder)
        beat: int = row["beat"]
        if row["holder"] != holder:
            seen_at = self._monotonic()
            known, since = self._seen.setdefault(id, (beat, seen_at))
            if known != beat:
                self._seen[id] = (beat, seen_at)
                return False
            if seen_at - since < silent_seconds:
                return False
        taken = await self._take(id, holder, beat)
        self._seen.pop(id, None)
        return taken is not None

    async def _found(self, id: str, holder: str) -> bool:
        row = {"_id": id, "kind": _ROLE, "holder": holder, "beat": 1}
        try:
            await self._leases.insert(row | {"renewed": await self._backend.now()})
        except Duplicate:
            return False
        return True

    async def _take(self, id: str, holder: str, beat: int) -> Record | None:
        change: Change = {
            "$set": {"holder": holder, "renewed": await self._backend.now()},
            "$inc": {"beat": 1},
        }
        return await self._leases.find_and_update({"_id": id, "beat": beat}, change)
