"""Schedules: what runs by itself and when; pause, resume, and start one now."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query

from machina.api import schedule_examples as examples
from machina.api import schedule_rows as rows
from machina.api.deps import BodyDep, ResourcesDep, not_draining
from machina.api.envelopes import Answer, one, page
from machina.api.examples import body as body_example
from machina.api.queries import MAX_PAGE_SIZE, read_search
from machina.api.run_rows import agent_head, workflow_head
from machina.api.security import Caller, require
from machina.auth import Principal, Scope
from machina.errors import Conflict, DefinitionMissing, NotFound
from machina.resources import Resources
from machina.runs.planned import PlannedRuns
from machina.runs.run import public_status
from machina.store.schedules import Schedule

router = APIRouter(prefix="/schedules", tags=["Schedules"])

Target = Annotated[
    str, Path(description="Name or id of the schedule.", examples=["daily-report:morning"])
]
_ADMIN: Final = Depends(require(Scope.ADMIN))
_TRIES: Final = 8


@router.get("", summary="All schedules", responses=examples.PAGE_ANSWERS)
async def list_schedules(
    caller: Caller,
    resources: ResourcesDep,
    number: Annotated[int, Query(alias="page", ge=1, le=1_000_000)] = 1,
    size: Annotated[int, Query(alias="page_size", ge=1, le=MAX_PAGE_SIZE)] = 100,
) -> Answer:
    """By name. `state` is `active`, `paused`, `done` (a one-shot that ran), `inactive` (its agent
    or job is), `invalid` (`error` says why) or `forbidden` (the server allows no one-shots).
    """
    found, total = await resources.store.schedules.search(
        caller.project, {}, skip=(number - 1) * size, limit=size
    )
    return page([rows.schedule_row(row) for row in found], total=total, page=number, page_size=size)


@router.post(
    "/search",
    summary="Search schedules",
    responses=examples.PAGE_ANSWERS,
    openapi_extra=body_example(examples.SEARCH_BODY),
)
async def search_schedules(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """By name, unless told otherwise; with the grammar of every search."""
    query = read_search(body, unsorted=())
    found, total = await resources.store.schedules.search(
        caller.project,
        rows.schedule_filters(query.filters),
        sort=rows.schedule_sort(query.sort),
        skip=query.skip,
        limit=query.page_size,
    )
    shown = [query.project(rows.schedule_row(row)) for row in found]
    return page(shown, total=total, page=query.page, page_size=query.page_size)


@router.get("/{schedule}", summary="A schedule", responses=examples.ROW_ANSWERS)
async def read_schedule(schedule: Target, caller: Caller, resources: ResourcesDep) -> Answer:
    """`next_execution` is when it fires next, `last_run_id` the run that it started last."""
    return one(rows.schedule_row(await _find(schedule, caller, resources)))


@router.post(
    "/{schedule}/pause",
    summary="Pause a schedule",
    responses=examples.CHANGE_ANSWERS,
    dependencies=[_ADMIN],
)
async def pause_schedule(schedule: Target, caller: Caller, resources: ResourcesDep) -> Answer:
    """It stays paused, also when its agent is installed again, until it is resumed. Runs that have
    begun go on. Harmless to repeat.
    """
    changed = await _set_paused(schedule, caller, resources, paused=True)
    return one(rows.schedule_row(changed), "schedule paused")


@router.post(
    "/{schedule}/resume",
    summary="Resume a schedule",
    responses=examples.CHANGE_ANSWERS,
    dependencies=[_ADMIN],
)
async def resume_schedule(schedule: Target, caller: Caller, resources: ResourcesDep) -> Answer:
    """By cron it fires at its next time, by frequency or interval as soon as one has passed since
    it last fired. What passed while it was paused is not made up for. Harmless to repeat.
    """
    changed = await _set_paused(schedule, caller, resources, paused=False)
    return one(rows.schedule_row(changed), "schedule resumed")


@router.post(
    "/{schedule}/trigger",
    summary="Start what a schedule starts, now",
    responses=examples.TRIGGER_ANSWERS,
    dependencies=[_ADMIN, Depends(not_draining)],
)
async def trigger_schedule(schedule: Target, caller: Caller, resources: ResourcesDep) -> Answer:
    """Beside its due times, which stay as they are; works for paused and inactive schedules too.
    409 while its last run is not over, unless the schedule allows overlap.
    """
    found = await _find(schedule, caller, resources)
    store = resources.store
    planned = PlannedRuns(store.schedules, store.definitions, resources.runs)
    try:
        run = await planned.start_by_hand(found, await store.now())
    except DefinitionMissing as missing:
        raise NotFound(missing.message, field="schedule") from missing
    heads = {"agent": agent_head, "workflow": workflow_head}
    shown = {"run_id": run.id, "status": public_status(run.kind, run.status)}
    if run.kind in heads:
        shown |= heads[run.kind](run)
    return one(shown, "schedule triggered")


async def _find(name: str, caller: Principal, resources: Resources) -> Schedule:
    found = await resources.store.schedules.find(caller.project, name)
    if found is None:
        raise NotFound(f"There is no schedule '{name[:80]}'.", field="schedule")
    return found


async def _set_paused(
    name: str, caller: Principal, resources: Resources, *, paused: bool
) -> Schedule:
    """The schedule as it is then. Raises `Conflict` while others keep changing it."""
    store = resources.store
    for _ in range(_TRIES):
        found = await _find(name, caller, resources)
        if found.paused == paused:
            return found
        now = await store.now()
        values: dict[str, Any] = {"paused": paused, "next_at": None, "updated": now}
        if found.firing is None:  # else it is looked at anyway
            fires = not paused and found.standing == "live" and not found.done
            values["wake_at"] = now if fires else None
        changed = await store.schedules.change(found, **values)
        if changed is not None:
            return changed
    raise Conflict(f"The schedule '{name[:80]}' is changing; try again.")
