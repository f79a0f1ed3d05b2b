"""Schedules: one row per frequency or job of an agent, with what became of it so far.

The plan in a row is derived from its agent's definition by the scheduler; pausing is the
operator's. Every change names the revision that it was decided on, so of several processes one
succeeds. A due time is taken by moving it to `firing` in the same change that puts the next one in
its place; it stays there until its run is known to be recorded, whoever does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from machina.definitions.schedule import TargetType
from machina.store.base import Backend, Query, Record, Sort
from machina.store.filters import find_page, scoped

Standing = Literal["live", "inactive", "invalid", "forbidden"]
"""What the plan is worth: it fires; its agent is not active; it makes no sense; it is a one-shot
and the operator wants none."""

AGENT_FIELDS: Final = (
    *("project", "name", "status", "updated"),
    *("body.status", "body.scheduled", "body.context", "body.jobs"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BY_NAME: Final[Sort] = (("name", 1),)
_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Schedule:
    """One row. All times are the store's, in UTC."""

    id: str
    project: str
    name: str
    agent_id: str
    agent: str
    """The name of the agent that asks for it."""
    key: str
    """Which of the agent's plans it is."""
    type: TargetType
    target: str
    payload: dict[str, Any]
    interval: float | None
    """Seconds; never less than the operator allows."""
    cron: str | None
    timezone: str | None
    once: bool
    allow_overlap: bool
    standing: Standing
    error: str | None
    """Why the plan is invalid."""
    fingerprint: str
    """Of the plan: a row with another one is out of date."""
    paused: bool
    created: datetime
    updated: datetime
    next_at: datetime | None = None
    """The next due time; None when there is none, or when it is still to be worked out."""
    wake_at: datetime | None = None
    """When a scheduler must look at the row; None: never by itself."""
    firing: datetime | None = None
    """A due time that was taken and whose run is not known to be recorded yet."""
    done: bool = False
    """A one-shot that had its turn."""
    tries: int = 0
    """How often the queue refused the run of `firing`."""
    last_tick: datetime | None = None
    last_run_id: str | None = None
    last_error: str | None = None
    """Why the last due time brought no run."""
    fired: int = 0
    skipped: int = 0
    """Due times that passed while the run before was not over."""
    missed: int = 0
    """Due times that passed while no scheduler ran, as far as they were counted."""
    revision: int = 0

    @property
    def fires(self) -> bool:
        """Whether it has a next time at all."""
        return self.standing == "live" and not self.paused and not self.done

    @property
    def state(self) -> str:
        """One word for people: `active`, `paused`, `done`, `inactive`, `invalid`, `forbidden`."""
        if self.standing != "live":
            return self.standing
        return "paused" if self.paused else "done" if self.done else "active"

    def wake_after_firing(self, now: datetime) -> datetime | None:
        """When to look at the row once nothing is being fired."""
        if not self.fires:
            return None
        return self.next_at or now

    def to_record(self) -> Record:
        """The stored form."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "id"}
        return {"_id": self.id} | record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Schedule:
        """Reads the stored form; fields of a newer version are ignored."""
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in record.items() if key in known}
        return cls(**(values | {"id": str(record["_id"])}))


class ScheduleStore:
    """The schedules of all projects. Every call raises `StoreDown` when the store is away."""

    def __init__(self, backend: Backend) -> None:
        self._schedules = backend.collection("schedules")
        self._agents = backend.collection("agents")

    async def insert(self, schedule: Schedule) -> None:
        """Adds a row.

        Raises:
            Duplicate: the project has a schedule of this name, or the row exists.
        """
        await self._schedules.insert(schedule.to_record())

    async def get(self, id: str) -> Schedule | None:
        """The row with this id."""
        record = await self._schedules.get(id)
        return None if record is None else Schedule.from_record(record)

    async def find(self, project: str, name_or_id: str) -> Schedule | None:
        """The schedule of a project with this name or, if there is none, with this id."""
        named = await self._schedules.find({"project": project, "name": name_or_id}, limit=1)
        if named:
            return Schedule.from_record(named[0])
        found = await self.get(name_or_id) if name_or_id else None
        return found if found is not None and found.project == project else None

    async def search(
        self, project: str, query: Query, *, sort: Sort = (), skip: int = 0, limit: int = 10
    ) -> tuple[list[Schedule], int]:
        """One page of the matching schedules, by name unless sorted, and how many match.

        Raises:
            QueryRefused: the query or the sort is not allowed.
        """
        asked, order = scoped(project, query), sort or _BY_NAME
        rows, total = await find_page(self._schedules, asked, sort=order, skip=skip, limit=limit)
        return [Schedule.from_record(row) for row in rows], total

    async def waiting(self, limit: int) -> list[Schedule]:
        """The rows that a scheduler must look at, now or later, the most urgent first."""
        rows = await self._schedules.find(
            {"wake_at": {"$gt": _EPOCH}}, sort=(("wake_at", 1),), limit=limit
        )
        return [Schedule.from_record(row) for row in rows]

    async def change(self, schedule: Schedule, **values: Any) -> Schedule | None:
        """Sets fields of a row that is still as `schedule` says; None when it is not."""
        record = await self._schedules.find_and_update(
            {"_id": schedule.id, "revision": schedule.revision},
            {"$set": values, "$inc": {"revision": 1}},
        )
        return None if record is None else Schedule.from_record(record)

    async def remove(self, schedule: Schedule) -> bool:
        """Removes a row."""
        return await self._schedules.delete({"_id": schedule.id}) == 1

    async def of_target(self, schedule: Schedule) -> list[Schedule]:
        """Every schedule with the same target, this one included."""
        rows = await self._schedules.find(
            {"project": schedule.project, "target": schedule.target, "type": schedule.type}
        )
        return [Schedule.from_record(row) for row in rows]

    async def by_agent(self, agent_ids: Sequence[str] | None = None) -> dict[str, list[Schedule]]:
        """The schedules that agents ask for, by the agents' ids; of all agents for None."""
        query: Query = {} if agent_ids is None else {"agent_id": {"$in": list(agent_ids)}}
        found: dict[str, list[Schedule]] = {}
        for row in await self._schedules.find(query):
            schedule = Schedule.from_record(row)
            found.setdefault(schedule.agent_id, []).append(schedule)
        return found

    async def agent(self, agent_id: str) -> Record | None:
        """What a plan needs of one agent's definition, as `agents_since` gives it."""
        rows = await self._agents.find({"_id": agent_id}, fields=AGENT_FIELDS, limit=1)
        return rows[0] if rows else None

    async def agents_since(
        self, since: datetime | None, after_id: str = "", limit: int = _PAGE
    ) -> list[Record]:
        """A page of the agents of all projects that changed since then, by id after `after_id`.

        Each has `project`, `name`, `status`, `updated` and the parts of its `body` that matter.
        """
        query: dict[str, Any] = {"_id": {"$gt": after_id}}
        if since is not None:
            query["updated"] = {"$gte": since}
        return await self._agents.find(
            cast("Query", query), sort=(("_id", 1),), limit=limit, fields=AGENT_FIELDS
        )
