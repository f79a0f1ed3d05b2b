"""Single calls: one command of a connector, or one prompt, executed by a worker."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request

from machina.api import task_examples as examples
from machina.api.deps import BodyDep, ResourcesDep
from machina.api.envelopes import Answer
from machina.api.examples import body as body_example
from machina.api.foreground import Foreground, ForegroundDep
from machina.api.json_body import read_object
from machina.api.middleware import is_form
from machina.api.run_rows import task_answer
from machina.api.security import Caller
from machina.api.starting import Operation, Starter, StarterDep
from machina.api.task_bodies import (
    decode_form,
    read_connector_body,
    read_prompt_body,
    read_target,
)
from machina.api.uploads import read_form
from machina.errors import MachinaError
from machina.queue.names import Queue

router = APIRouter(tags=["Connectors"])
prompt_router = APIRouter(prefix="/prompt", tags=["Prompts"])

CONNECTOR: Final = Operation("connector-executor", "connector", Queue.HIGH)
PROMPT: Final = Operation("prompt-executor", "prompt", Queue.HIGH)

ConnectorTarget = Annotated[
    str, Path(description="Id or name of the connector.", examples=["weather"])
]
PromptTarget = Annotated[str, Path(description="Id or name of the prompt.", examples=["reply"])]


@router.post(
    "/connector/executor/{connector}",
    summary="Call a command of a connector",
    responses=examples.CONNECTOR_ANSWERS,
    openapi_extra=examples.CONNECTOR_REQUEST,
)
async def execute_connector(
    connector: ConnectorTarget,
    request: Request,
    caller: Caller,
    resources: ResourcesDep,
    starter: StarterDep,
    foreground: ForegroundDep,
) -> Answer:
    """Calls the command and answers with what it gave; a failure is an error with its code.

    The body is JSON, or a form whose files the connector finds by the paths that stand in its
    inputs under the names of their fields. A call that takes longer than clients wait goes on, and
    `GET /execution/agent-run/{run_id}` shows it.
    """
    definition = await starter.find("connector", connector)
    if not is_form(request.headers.get("content-type")):
        body = read_connector_body(definition, await read_object(request))
        started = await starter.start(CONNECTOR, str(definition["_id"]), body)
        return Answer(task_answer(await foreground.wait(started.run)))
    form = await read_form(request, caller.project, resources)
    blobs = resources.store.blobs
    try:
        body = read_connector_body(definition, decode_form(form.texts), form.files)
        started = await starter.start(CONNECTOR, str(definition["_id"]), body)
    except MachinaError:
        await blobs.delete(caller.project, *form.blobs)
        raise
    if not started.created:  # the run of the earlier request has files of its own
        await blobs.delete(caller.project, *form.blobs)
    run = await foreground.wait(started.run)
    if run.is_final:
        await blobs.delete(caller.project, *form.blobs)
    return Answer(task_answer(run))


@prompt_router.post(
    "/execute",
    summary="Execute a prompt that the body names",
    responses=examples.PROMPT_ANSWERS,
    openapi_extra=body_example({"name": "reply"} | examples.PROMPT_BODY),
)
async def execute_named_prompt(
    body: BodyDep, starter: StarterDep, foreground: ForegroundDep
) -> Answer:
    """The same as the prompt's own path, for callers that only send bodies."""
    return await _execute_prompt(read_target(body), body, starter, foreground)


@prompt_router.post(
    "/execute/{prompt}",
    summary="Execute a prompt (another path for the same)",
    responses=examples.PROMPT_ANSWERS,
    openapi_extra=body_example(examples.PROMPT_BODY),
)
@prompt_router.post(
    "/executor/{prompt}",
    summary="Execute a prompt",
    responses=examples.PROMPT_ANSWERS,
    openapi_extra=body_example(examples.PROMPT_BODY),
)
async def execute_prompt(
    prompt: PromptTarget, body: BodyDep, starter: StarterDep, foreground: ForegroundDep
) -> Answer:
    """Asks a model by the prompt and answers with what it said: text, or an object where the
    prompt has a schema. `connector` says which model; a failure is an error with its code.
    """
    return await _execute_prompt(prompt, body, starter, foreground)


async def _execute_prompt(
    target: str, body: dict[str, Any], starter: Starter, foreground: Foreground
) -> Answer:
    definition = await starter.find("prompt", target)
    read = read_prompt_body(definition, body)
    started = await starter.start(PROMPT, str(definition["_id"]), read)
    return Answer(task_answer(await foreground.wait(started.run)))
