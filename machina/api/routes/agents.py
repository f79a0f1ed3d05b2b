"""Agents: stream them, or execute them in the foreground and in the background."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path
from starlette.responses import Response

from machina.api import examples
from machina.api.bodies import read_agent_body
from machina.api.deps import BodyDep, ResumeDep
from machina.api.envelopes import Answer, one
from machina.api.foreground import ForegroundDep
from machina.api.run_rows import agent_answer, agent_head
from machina.api.run_streams import RunStreamsDep
from machina.api.starting import Operation, StarterDep
from machina.queue.names import Queue

router = APIRouter(prefix="/agent", tags=["Agents"])

STREAM: Final = Operation("agent-stream", "agent", Queue.STREAMING, streamed=True)
FOREGROUND: Final = Operation("agent-executor", "agent", Queue.HIGH)
BACKGROUND: Final = Operation("agent-executor", "agent", Queue.NORMAL)

Target = Annotated[str, Path(description="Id or name of the agent.", examples=["hello"])]


@router.post(
    "/stream/{agent}",
    summary="Start an agent and stream what it does",
    response_class=Response,
    responses=examples.STREAM_ANSWERS,
    openapi_extra=examples.body(examples.AGENT_STREAM_BODY),
)
async def stream_agent(
    agent: Target, body: BodyDep, starter: StarterDep, streams: RunStreamsDep, resume: ResumeDep
) -> Response:
    """Answers at once and sends events as they happen; `done` is always the last.

    A client that loses the connection goes on at `Content-Location` with the id of the last event
    it has; the run does not stop meanwhile. With an `Idempotency-Key` the request itself can be
    sent again.
    """
    started = await starter.start(STREAM, agent, read_agent_body(body))
    return await streams.of_started(started, resume)


@router.post(
    "/execute/{agent}",
    summary="Execute an agent (another path for the same)",
    responses=examples.AGENT_ANSWERS,
    openapi_extra=examples.body(examples.AGENT_BODY),
)
@router.post(
    "/executor/id/{agent}",
    summary="Execute an agent by id",
    responses=examples.AGENT_ANSWERS,
    openapi_extra=examples.body(examples.AGENT_BODY),
)
@router.post(
    "/executor/{agent}",
    summary="Execute an agent",
    responses=examples.AGENT_ANSWERS,
    openapi_extra=examples.body(examples.AGENT_BODY),
)
async def execute_agent(
    agent: Target, body: BodyDep, starter: StarterDep, foreground: ForegroundDep
) -> Answer:
    """Runs an agent to its end and answers with the final state under `response`.

    With `agent-config.delay` true it answers at once with the ids; so it does when the run takes
    longer than clients wait. The run then goes on, and `GET /execution/agent-run/{id}` shows it.
    """
    read = read_agent_body(body)
    started = await starter.start(BACKGROUND if read.delay else FOREGROUND, agent, read)
    if read.delay:
        return one(agent_head(started.run), "agent scheduled")
    run = await foreground.wait(started.run)
    return one(agent_answer(run), "agent executed" if run.is_final else "agent still running")
