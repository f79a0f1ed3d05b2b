"""Workflows: stream them, execute them, schedule them and ask how a scheduled one is doing."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path
from starlette.responses import Response

from machina.api import examples
from machina.api.bodies import read_workflow_body
from machina.api.deps import BodyDep, ResourcesDep, ResumeDep
from machina.api.envelopes import Answer, one
from machina.api.foreground import ForegroundDep
from machina.api.run_rows import schedule_answer, workflow_answer, workflow_head
from machina.api.run_streams import RunStreamsDep
from machina.api.security import Caller
from machina.api.starting import Operation, StarterDep
from machina.queue.names import Queue

router = APIRouter(prefix="/workflow", tags=["Workflows"])

STREAM: Final = Operation("workflow-stream", "workflow", Queue.STREAMING, streamed=True)
FOREGROUND: Final = Operation("workflow-execute", "workflow", Queue.HIGH)
SCHEDULED: Final = Operation("workflow-schedule", "workflow", Queue.LOW)

Target = Annotated[str, Path(description="Id or name of the workflow.", examples=["greet"])]
RunIdPath = Annotated[
    str, Path(description="Id of the run.", examples=["692431f0a1b2c3d4e5000001"])
]


@router.post(
    "/stream/{workflow}",
    summary="Start a workflow and stream what it does",
    response_class=Response,
    responses=examples.STREAM_ANSWERS,
    openapi_extra=examples.body(examples.WORKFLOW_BODY),
)
async def stream_workflow(
    workflow: Target, body: BodyDep, starter: StarterDep, streams: RunStreamsDep, resume: ResumeDep
) -> Response:
    """The same stream as an agent's, for one workflow; `done` carries its outputs as `state`."""
    started = await starter.start(STREAM, workflow, read_workflow_body(body))
    return await streams.of_started(started, resume)


@router.post(
    "/executor/{workflow}",
    summary="Execute a workflow (another path for the same)",
    responses=examples.WORKFLOW_ANSWERS,
    openapi_extra=examples.body(examples.WORKFLOW_BODY),
)
@router.post(
    "/execute/{workflow}",
    summary="Execute a workflow",
    responses=examples.WORKFLOW_ANSWERS,
    openapi_extra=examples.body(examples.WORKFLOW_BODY),
)
async def execute_workflow(
    workflow: Target, body: BodyDep, starter: StarterDep, foreground: ForegroundDep
) -> Answer:
    """Runs a workflow to its end; its outputs stand in `data` next to `workflow_run_id` and
    `status`, which is `failed` for one that failed.

    A run that takes longer than clients wait goes on; `GET /workflow/schedule/{run id}` shows it.
    """
    started = await starter.start(FOREGROUND, workflow, read_workflow_body(body))
    run = await foreground.wait(started.run)
    return one(workflow_answer(run))


@router.post(
    "/schedule/{workflow}",
    summary="Execute a workflow in the background",
    responses=examples.SCHEDULED_ANSWERS,
    openapi_extra=examples.body(examples.WORKFLOW_BODY),
)
async def schedule_workflow(workflow: Target, body: BodyDep, starter: StarterDep) -> Answer:
    """Queues a run and answers at once; poll `GET /workflow/schedule/{run id}` for its end."""
    started = await starter.start(SCHEDULED, workflow, read_workflow_body(body))
    return one(workflow_head(started.run), "workflow scheduled")


@router.get(
    "/schedule/{run_id}",
    summary="How a scheduled workflow is doing",
    responses=examples.SCHEDULE_STATE_ANSWERS,
)
async def scheduled_workflow(run_id: RunIdPath, caller: Caller, resources: ResourcesDep) -> Answer:
    """`status` ends on `executed` or `failed`; then `workflow_output` holds the outputs."""
    run = await resources.runs.get(run_id, project=caller.project, principal=caller.sees)
    return one(schedule_answer(run))
