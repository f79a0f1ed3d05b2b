"""Keeps the schedules in step with the agents that ask for them; nobody has to tell the scheduler.

Every few seconds it reads the agents that changed since, every minute all of them, which also finds
those that are gone. What an agent wants is worked out again from its definition each time, so the
result does not depend on what was seen before, and any number of processes may do it at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from machina.definitions.schedule import Plan, read_plans
from machina.errors import Invalid
from machina.events import encode_json
from machina.scheduler.cron import check_cron
from machina.scheduler.timing import is_astray
from machina.store.base import Duplicate, Record
from machina.store.schedules import Schedule, ScheduleStore, Standing

log = structlog.get_logger(__name__)

FULL_SECONDS: Final = 60.0
OVERLAP: Final = timedelta(seconds=10)
"""A change is dated before it is written: the last seconds are looked at again."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator allows schedules."""

    start_paused: bool = False
    one_shots: bool = True
    min_seconds: float = 5.0
    catch_up_seconds: float = 86_400.0


class Reconciler:
    """Derives schedules for one process."""

    def __init__(
        self,
        schedules: ScheduleStore,
        policy: Policy,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schedules = schedules
        self._policy = policy
        self._monotonic = monotonic
        self._full_at: float | None = None
        self._since: datetime | None = None

    async def reconcile(self, now: datetime) -> None:
        """Brings the schedules in step with what changed, or with everything once a minute."""
        seen_at = self._monotonic()
        full = self._full_at is None or seen_at - self._full_at >= FULL_SECONDS
        if full:
            await self._reconcile_all(now)
            self._full_at = seen_at
        else:
            await self._reconcile_changed(now)
        self._since = now - OVERLAP

    async def settle(self, agent: Record, now: datetime, rows: Sequence[Schedule]) -> None:
        """Brings the schedules of one agent in step with its definition.

        Args:
            agent: As the store's `agents_since` gives it.
            rows: The schedules it has so far.
        """
        wanted = {plan.key: plan for plan in plans_of(agent)}
        for gone in (row for row in rows if row.key not in wanted):
            await self._remove(gone)
        known = {row.key: row for row in rows}
        for key, plan in wanted.items():
            row = known.get(key)
            if row is not None and self._agrees(row, plan):
                continue
            values = await self._values(agent, plan)
            if row is None:
                await self._add(agent, plan, values, now)
            else:
                await self._revise(row, values, now)

    def is_current(self, agent: Record, schedule: Schedule) -> bool:
        """Whether a row still says what its agent's definition says."""
        return any(
            plan.key == schedule.key and fingerprint(plan) == schedule.fingerprint
            for plan in plans_of(agent)
        )

    async def _reconcile_changed(self, now: datetime) -> None:
        after = ""
        while agents := await self._schedules.agents_since(self._since, after):
            after = str(agents[-1]["_id"])
            rows = await self._schedules.by_agent([str(agent["_id"]) for agent in agents])
            for agent in agents:
                await self.settle(agent, now, rows.get(str(agent["_id"]), ()))

    async def _reconcile_all(self, now: datetime) -> None:
        # Rows first: one of an agent that is installed meanwhile is not taken for an orphan.
        rows = await self._schedules.by_agent()
        seen = [row for group in rows.values() for row in group]
        after = ""
        while agents := await self._schedules.agents_since(None, after):
            after = str(agents[-1]["_id"])
            for agent in agents:
                await self.settle(agent, now, rows.pop(str(agent["_id"]), ()))
        for orphans in rows.values():
            for orphan in orphans:
                await self._remove(orphan)
        await self._bring_back(seen, now)

    async def _bring_back(self, rows: Sequence[Schedule], now: datetime) -> None:
        """Intervals that would wait for hours because the clock was ahead and was set back."""
        for row in rows:
            if (
                row.fires
                and row.firing is None
                and is_astray(row, now)
                and await self._schedules.change(row, next_at=None, wake_at=now)
            ):  # else it was brought in step just now, or another process was faster
                log.warning("schedule.astray", schedule=row.name, next_at=str(row.next_at))

    async def _remove(self, schedule: Schedule) -> None:
        if await self._schedules.remove(schedule):
            log.info("schedule.removed", schedule=schedule.name, project=schedule.project)

    async def _add(self, agent: Record, plan: Plan, values: dict[str, Any], now: datetime) -> None:
        agent_id = str(agent["_id"])
        schedule = Schedule(
            id=schedule_id(str(agent["project"]), agent_id, plan.key),
            project=str(agent["project"]),
            agent_id=agent_id,
            key=plan.key,
            paused=self._policy.start_paused and not plan.once,
            created=now,
            updated=now,
            **values,
        )
        wake_at = now if schedule.fires else None
        for name in (schedule.name, schedule.name, _distinct(schedule.name, agent_id)):
            named = replace(schedule, name=name, wake_at=wake_at)
            try:
                await self._schedules.insert(named)
            except Duplicate as taken:
                if taken.field == "_id":
                    return  # another process was faster
                await self._remove_orphan(named)
                continue
            log.info("schedule.added", schedule=name, project=schedule.project)
            return

    async def _remove_orphan(self, schedule: Schedule) -> None:
        """Removes what has this name and is left of an agent that is gone."""
        holder = await self._schedules.find(schedule.project, schedule.name)
        if holder is not None and await self._schedules.agent(holder.agent_id) is None:
            await self._remove(holder)

    async def _revise(self, row: Schedule, values: dict[str, Any], now: datetime) -> None:
        if row.name == _distinct(values["name"], row.agent_id):
            values["name"] = row.name
        values |= {
            "next_at": None,
            "done": values["once"] and row.last_tick is not None,
            "last_error": None,
            "updated": now,
        }
        revised = replace(row, **values)
        # What is being fired is completed as it was taken, and looked at when it was to be.
        values["wake_at"] = (
            row.wake_at if row.firing is not None else revised.wake_after_firing(now)
        )
        try:
            await self._schedules.change(row, **values)
        except Duplicate:
            await self._schedules.change(row, **values | {"name": row.name})
        log.info("schedule.changed", schedule=row.name, project=row.project)

    def _agrees(self, row: Schedule, plan: Plan) -> bool:
        """Whether a row says what the plan says, and what the operator's settings make of it."""
        return (
            row.fingerprint == fingerprint(plan)
            and row.interval == self._interval(plan)
            and (row.standing == "invalid" or row.standing == self._standing(plan, row.error))
        )

    async def _values(self, agent: Record, plan: Plan) -> dict[str, Any]:
        """The fields of a row that follow from the plan and from what the operator allows."""
        error = plan.error
        if error is None and plan.cron is not None:
            error = await asyncio.to_thread(_fault_of, plan.cron, plan.timezone)
        return {
            "name": plan.name,
            "agent": str(agent["name"]),
            "type": plan.type,
            "target": plan.target,
            "payload": plan.payload,
            "interval": self._interval(plan),
            "cron": plan.cron,
            "timezone": plan.timezone,
            "once": plan.once,
            "allow_overlap": plan.allow_overlap,
            "standing": self._standing(plan, error),
            "error": error,
            "fingerprint": fingerprint(plan),
        }

    def _interval(self, plan: Plan) -> float | None:
        return None if plan.interval is None else max(plan.interval, self._policy.min_seconds)

    def _standing(self, plan: Plan, error: str | None) -> Standing:
        if error is not None:
            return "invalid"
        if not plan.enabled:
            return "inactive"
        if plan.once and not self._policy.one_shots:
            return "forbidden"
        return "live"


def plans_of(agent: Record) -> list[Plan]:
    """What an agent as the store's `agents_since` gives it wants scheduled."""
    body = agent.get("body")
    return read_plans(
        body if isinstance(body, dict) else {}, str(agent["name"]), agent.get("status")
    )


def _distinct(name: str, agent_id: str) -> str:
    """The name of a schedule whose own name another one has."""
    return f"{name}:{agent_id}"


def fingerprint(plan: Plan) -> str:
    """A hash over everything the definition says of a plan."""
    return hashlib.sha256(encode_json(asdict(plan))).hexdigest()


def schedule_id(project: str, agent_id: str, key: str) -> str:
    """The id of a schedule: the same in every process, so that it cannot be added twice."""
    return hashlib.sha256(f"{project}\n{agent_id}\n{key}".encode()).hexdigest()[:24]


def _fault_of(cron: str, timezone: str | None) -> str | None:
    try:
        check_cron(cron, timezone)
    except Invalid as invalid:
        return invalid.message
    return None
