"""Runs one call asked for over the API: a command of a connector, a prompt, an embedding.

What the caller sends is data: no value of it is ever evaluated as an expression.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from machina.definitions import Kind, Task
from machina.engine.context import RunContext
from machina.engine.credentials import connector_defaults
from machina.engine.results import RunResult, WorkflowOutcome, locate, make_result
from machina.engine.tasks.base import TaskCall
from machina.engine.tasks.connector import ask_connector
from machina.engine.tasks.prompt import COMMANDS as PROMPT_COMMANDS
from machina.engine.tasks.prompt import run_prompt
from machina.errors import DefinitionInvalid, DefinitionMissing, RunError
from machina.expressions import Scope
from machina.expressions.scope import is_subject

log = structlog.get_logger(__name__)

Request = Mapping[str, Any]

EMBEDDING_COMMAND: Final = "invoke_embedding"
MAX_TEXTS: Final = 10_000
"""Texts of one embedding call."""
_MAX_NAME: Final = 2_000


async def run_single(request: Request, ctx: RunContext) -> RunResult:
    """Does what a run of the kind `task` was asked for.

    `request` is `{"type": "connector", "connector": name, "command", "inputs", "path_attribute"}`,
    `{"type": "prompt", "prompt": name, "inputs", "connector": {…}}` or
    `{"type": "embedding", "connector": {…}, "inputs": {"text": …} or {"texts": […]}}`. The state of
    the result is `{"status", "data", "message"}`.

    Raises:
        MachinaError: the store or the log is not available; a `RunError` is in the result instead.
    """
    started = ctx.doors.now()
    type = str(request.get("type") or "")
    name = _title(request)
    try:
        run = _TYPES.get(type)
        if run is None:
            raise DefinitionInvalid(
                f"A single task is one of {', '.join(_TYPES)}, not '{type[:40]}'; correct 'type'."
            )
        state = await run(request, ctx)
        error = None
    except RunError as failed:
        locate(failed, name)
        error = ctx.seal(failed)
        log.warning("task.failed", type=type, task=name, code=error.code, error=error.message)
        state = {"status": False, "data": None, "message": error.message}
    status = "executed" if error is None else "failed"
    ctx.tasks.add("", (type, name), status, ctx.doors.now() - started, error=error)
    result = await make_result(ctx, state, (), error)
    data = result.state.get("data")
    if isinstance(data, str) and not result.content:
        result.content = data
    return result


async def _run_connector(request: Request, ctx: RunContext) -> dict[str, Any]:
    name, command = _text(request, "connector"), _text(request, "command")
    if ctx.doors.serves_model(name) and command in (*PROMPT_COMMANDS, EMBEDDING_COMMAND):
        block = {**_block(request, "path_attribute"), "name": name, "command": command}
        ask = _run_embedding if command == EMBEDDING_COMMAND else _ask_model
        return await ask({**request, "connector": block}, ctx)
    ctx.note_repeat("", name)
    attributes = _block(request, "path_attribute")
    block = {"name": name, "command": command, "command_attributes": attributes}
    task = {"type": "connector", "name": _title(request), "connector": block}
    where = f"command '{command}' of connector '{name}'"
    reply = await ask_connector(await _call(ctx, task, _block(request, "inputs"), where), block)
    message = reply.envelope.get("message")
    return _state(reply.data, message if isinstance(message, str) else "")


async def _run_prompt(request: Request, ctx: RunContext) -> dict[str, Any]:
    name = _text(request, "prompt")
    if await ctx.doors.definition(Kind.PROMPT, name) is None:
        raise DefinitionMissing(f"The prompt '{name}' is not installed; install it.")
    return await _ask_model(request, ctx)


async def _ask_model(request: Request, ctx: RunContext) -> dict[str, Any]:
    """Asks by an installed prompt, or, without one, with the inputs alone."""
    block = _block(request, "connector")
    named = request.get("prompt")
    for field, text in {**block, "prompt": named}.items():
        if isinstance(text, str) and len(text) > _MAX_NAME:
            raise DefinitionInvalid(f"'{field}' is longer than {_MAX_NAME} characters; shorten it.")
    task = {"type": "prompt", "name": _title(request), "connector": block}
    if isinstance(named, str):
        task["prompt"] = {"name": named}
    where = f"prompt '{_title(request)}'"
    call = await _call(ctx, task, _block(request, "inputs"), where)
    answer = (await run_prompt(call)).subject
    return _state(answer.value if is_subject(answer) else answer)


async def _call(
    ctx: RunContext, task: Mapping[str, Any], inputs: dict[str, Any], where: str
) -> TaskCall:
    """The request as the call of a task of no workflow: its scope is empty, its block is data."""
    nothing: dict[str, Any] = {}
    read = Task.read(task)
    return TaskCall(
        ctx,
        read,
        inputs,
        nothing,
        Scope(nothing, context=nothing),
        where,
        _run_no_workflow,
        await connector_defaults(ctx, read.connector.get("name")),
        is_data=True,
    )


async def _run_embedding(request: Request, ctx: RunContext) -> dict[str, Any]:
    inputs = _block(request, "inputs")
    given = next((inputs[key] for key in ("texts", "text", "input") if key in inputs), None)
    texts = [given] if isinstance(given, str) else given
    is_list = isinstance(texts, list | tuple) and 0 < len(texts) <= MAX_TEXTS
    if not is_list or not all(isinstance(text, str) and text for text in texts or ()):
        raise DefinitionInvalid(
            f"An embedding needs a 'text', or 1 to {MAX_TEXTS} 'texts', none of them empty."
        )
    embedder = ctx.doors.embedder(_block(request, "connector"))
    vectors = await embedder.embed(list(texts or ()))
    ctx.count(vectors.usage)
    return _state(vectors[0] if isinstance(given, str) else list(vectors))


_TYPES: Final[Mapping[str, Callable[[Request, RunContext], Awaitable[dict[str, Any]]]]] = {
    "connector": _run_connector,
    "prompt": _run_prompt,
    "embedding": _run_embedding,
}


async def _run_no_workflow(name: str, payload: Mapping[str, Any]) -> WorkflowOutcome:
    raise DefinitionMissing(f"A single task runs no workflow, such as '{name}'.")


def _state(data: Any, message: str = "") -> dict[str, Any]:
    return {"status": True, "data": data, "message": message}


def _title(request: Request) -> str:
    """The name for messages: of the prompt, else of the connector, else of the type."""
    connector = request.get("connector")
    named = connector.get("name") if isinstance(connector, Mapping) else connector
    name = request.get("prompt") or named or request.get("type")
    return name[:200] if isinstance(name, str) else "task"


def _text(request: Request, field: str) -> str:
    value = request.get(field)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise DefinitionInvalid(f"'{field}' must be a text that is not empty; name it in the request.")


def _block(request: Request, field: str) -> dict[str, Any]:
    value = request.get(field)
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(key): inner for key, inner in value.items()}
    raise DefinitionInvalid(f"'{field}' must be an object, not {type(value).__name__}.")
