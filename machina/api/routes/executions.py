"""Runs as the public API names them: search and read them, come back to their streams, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from machina.api import examples
from machina.api.deps import BodyDep, ResourcesDep, ResumeDep, not_draining
from machina.api.envelopes import Answer, one, page
from machina.api.queries import read_search
from machina.api.run_queries import run_filters, run_sort
from machina.api.run_rows import execution_row, failure_of
from machina.api.run_streams import RunStreamsDep
from machina.api.security import Caller
from machina.auth import Principal
from machina.errors import NotFound
from machina.resources import Resources
from machina.runs.run import Run, RunKind, public_status

router = APIRouter(prefix="/execution", tags=["Executions"])

RunIdPath = Annotated[
    str, Path(description="Id of the run.", examples=["692431f0a1b2c3d4e5000001"])
]
Compact = Annotated[bool, Query(description="Leave out the steps.")]


@router.post(
    "/agent-search",
    summary="Search runs of agents",
    responses=examples.SEARCH_ANSWERS,
    openapi_extra=examples.body(examples.RUN_SEARCH_BODY),
)
async def search_agent_runs(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """Newest first, unless told otherwise. A client's key finds its own runs."""
    return await _search("agent", body, caller, resources)


@router.post(
    "/workflow-search",
    summary="Search runs of workflows",
    responses=examples.SEARCH_ANSWERS,
    openapi_extra=examples.body(examples.RUN_SEARCH_BODY),
)
async def search_workflow_runs(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """Newest first, unless told otherwise. A client's key finds its own runs."""
    return await _search("workflow", body, caller, resources)


@router.get("/agent-run/{run_id}", summary="A run", responses=examples.RUN_ANSWERS)
async def agent_run(
    run_id: RunIdPath, caller: Caller, resources: ResourcesDep, compact: Compact = False
) -> Answer:
    """A run of an agent; also of a workflow, because the official CLI asks here for both."""
    run = await _find(run_id, caller, resources)
    return one(execution_row(run, steps=not compact, response=True))


@router.get("/workflow-run/{run_id}", summary="A run of a workflow", responses=examples.RUN_ANSWERS)
async def workflow_run(
    run_id: RunIdPath, caller: Caller, resources: ResourcesDep, compact: Compact = False
) -> Answer:
    """A run of a workflow."""
    run = await _find_workflow_run(run_id, caller, resources)
    return one(execution_row(run, steps=not compact, response=True))


@router.get(
    "/agent-run/{run_id}/stream",
    summary="Come back to the stream of a run",
    response_class=Response,
    responses=examples.RESUME_ANSWERS,
    dependencies=[Depends(not_draining)],
)
async def stream_agent_run(
    run_id: RunIdPath,
    caller: Caller,
    resources: ResourcesDep,
    streams: RunStreamsDep,
    resume: ResumeDep,
) -> Response:
    """Everything after `Last-Event-ID` (or `?after=`), from the beginning without one: what is
    there at once, the rest as it happens. Works until the log expires, also after the end.
    """
    return await streams.of_returning(await _find(run_id, caller, resources), resume)


@router.get(
    "/workflow-run/{run_id}/stream",
    summary="Come back to the stream of a workflow's run",
    response_class=Response,
    responses=examples.RESUME_ANSWERS,
    dependencies=[Depends(not_draining)],
)
async def stream_workflow_run(
    run_id: RunIdPath,
    caller: Caller,
    resources: ResourcesDep,
    streams: RunStreamsDep,
    resume: ResumeDep,
) -> Response:
    """The same for a run of a workflow."""
    return await streams.of_returning(await _find_workflow_run(run_id, caller, resources), resume)


@router.post(
    "/agent-run/{run_id}/cancel", summary="Cancel a run", responses=examples.CANCEL_ANSWERS
)
async def cancel_agent_run(run_id: RunIdPath, caller: Caller, resources: ResourcesDep) -> Answer:
    """A waiting run ends at once, a running one within a second. Harmless to repeat; a run that
    has ended stays as it is.
    """
    return await _cancel(await _find(run_id, caller, resources), resources)


@router.post(
    "/workflow-run/{run_id}/cancel",
    summary="Cancel a run of a workflow",
    responses=examples.CANCEL_ANSWERS,
)
async def cancel_workflow_run(run_id: RunIdPath, caller: Caller, resources: ResourcesDep) -> Answer:
    """The same for a run of a workflow."""
    return await _cancel(await _find_workflow_run(run_id, caller, resources), resources)


async def _search(
    kind: RunKind, body: Mapping[str, Any], caller: Principal, resources: Resources
) -> Answer:
    query = read_search(body)
    runs, total = await resources.runs.search(
        project=caller.project,
        principal=caller.sees,
        kinds=("agent",) if kind == "agent" else ("workflow", "skill", "task"),
        query=run_filters(query.filters, kind),
        sort=run_sort(query.sort),
        skip=query.skip,
        limit=query.page_size,
    )
    full = not query.compact
    rows = [query.project(execution_row(run, steps=full, response=full)) for run in runs]
    return page(rows, total=total, page=query.page, page_size=query.page_size)


async def _find(run_id: str, caller: Principal, resources: Resources) -> Run:
    return await resources.runs.get(run_id, project=caller.project, principal=caller.sees)


async def _find_workflow_run(run_id: str, caller: Principal, resources: Resources) -> Run:
    run = await _find(run_id, caller, resources)
    if run.kind == "agent":
        raise NotFound(f"There is no run of a workflow '{run_id[:40]}'.", field="run_id")
    return run


async def _cancel(run: Run, resources: Resources) -> Answer:
    was_final = run.is_final
    run = await resources.runs.cancel(run)
    data = {
        "run_id": run.id,
        "status": public_status(run.kind, run.status),
        "cancel_requested": run.cancel_requested,
    }
    message = "run cancelled" if run.is_final else "cancel requested"
    return one(data | failure_of(run), "run had ended before" if was_final else message)
