"""The `prompt` task: asks the model that its connector stands for, or the connector itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import structlog

from machina.connectors.llm.base import ChatRequest, Usage
from machina.connectors.llm.parameters import read_number
from machina.connectors.registry import SCRIPT, filetype_of
from machina.definitions import Kind, Prompt
from machina.engine.blocks import evaluate_value
from machina.engine.tasks.answers import AnswerInvalid, read_checked
from machina.engine.tasks.base import TaskCall, TaskResult
from machina.engine.tasks.connector import call_connector
from machina.engine.tasks.conversation import Conversation
from machina.engine.tasks.messages import build_messages
from machina.errors import ConnectorFailed, TaskFailed
from machina.expressions import ConnectorResult, FreeText

log = structlog.get_logger(__name__)

COMMANDS: Final = ("invoke_prompt", "invoke_chat")
"""Commands of LLM connectors that stand for "ask the model"."""
_COMPUTED: Final = ("$", "context.", "context[")
MILLISECONDS_FROM: Final = 600
"""A `timeout` above this cannot mean seconds: authors then wrote milliseconds."""


async def run_prompt(call: TaskCall) -> TaskResult:
    """`$` in the outputs is the answer: a dictionary with a schema, else text.

    Raises:
        ConnectorFailed: the connector is neither installed nor a model's.
        TaskFailed: there is nothing to ask.
        ModelFailed: no answer, or none that follows the schema.
    """
    prompt = await _load_prompt(call)
    block = await _read_block(call, prompt)
    is_model = block["command"] in COMMANDS
    if is_model:
        await _require_model(call, block)
    request = _make_request(call, prompt, block)
    if not is_model:
        return await _ask_connector(call, block, request)
    conversation = Conversation(call, call.ctx.doors.provider(block), request)
    if request.schema is not None:
        return TaskResult(await conversation.structured(request.schema))
    return TaskResult(FreeText(await conversation.text(live=_is_live(block))))


async def _load_prompt(call: TaskCall) -> Prompt | None:
    """The prompt that the task names, else the one of the task's own name; None: free text."""
    named = call.task.raw.get("prompt")
    name = named.get("name") if isinstance(named, Mapping) else named
    if _is_computed(name) and not call.is_data:
        name = await evaluate_value(call.ctx, name, call.scope, f"{call.where}, prompt.name")
    name = name.strip() if isinstance(name, str) and name.strip() else call.task.name
    raw = await call.ctx.doors.definition(Kind.PROMPT, name)
    if raw is None:
        log.info("prompt.undefined", where=call.where, prompt=name)
        return None
    return Prompt.read(raw)


async def _read_block(call: TaskCall, prompt: Prompt | None) -> dict[str, Any]:
    """The connector block: the task's own over the prompt's default, computed values computed.

    From here on nothing of it is evaluated: what was computed may be data.
    """
    own = {key: value for key, value in call.task.connector.items() if value is not None}
    default = prompt.connector if prompt else {}
    if call.is_data:
        block = {**await _computed(call, default), **own}
    else:
        block = await _computed(call, {**default, **own})
    block["command"] = _command(block)
    return block


async def _computed(call: TaskCall, written: Mapping[str, Any]) -> dict[str, Any]:
    """Each value once; what is nested means something to connectors, not to models."""
    block: dict[str, Any] = {}
    for key in sorted(written, key=lambda key: key != "command"):
        value = written[key]
        nested = isinstance(value, dict | list) and _command(block) not in COMMANDS
        if nested or _is_computed(value):
            where = f"{call.where}, connector.{key}"
            value = await evaluate_value(call.ctx, value, call.scope, where)
        block[key] = value
    return block


def _command(block: Mapping[str, Any]) -> str:
    command = block.get("command")
    return (command.strip() if isinstance(command, str) else "") or COMMANDS[0]


def _is_computed(value: Any) -> bool:
    """Whether a value of a block is an expression; names of models and connectors are none."""
    return isinstance(value, str) and (
        any(mark in value for mark in _COMPUTED) or value.strip()[:1] in ("'", '"')
    )


def _is_live(block: Mapping[str, Any]) -> bool:
    stream = block.get("stream")
    return stream is True or (isinstance(stream, str) and stream.strip().casefold() == "true")


async def _require_model(call: TaskCall, block: Mapping[str, Any]) -> None:
    """A task without a connector gets the default model; a name must mean something.

    An installed connector of any name and type stands for a model when it is asked to be one.
    """
    name, doors = block.get("name"), call.ctx.doors
    if name is None or (isinstance(name, str) and doors.serves_model(name)):
        return
    if isinstance(name, str) and await doors.definition(Kind.CONNECTOR, name) is not None:
        return
    raise ConnectorFailed(
        f"{call.where} asks connector '{name}', which is not installed and stands for no model; "
        "correct the name, install its template, or name it in the file MACHINA_MODEL_ROUTES.",
        code="connector_not_found",
    )


async def _ask_connector(
    call: TaskCall, block: Mapping[str, Any], request: ChatRequest
) -> TaskResult:
    """Any other command is an ordinary call whose answer is `$`, usually a chat completion.

    REST connectors get the request as the `body` of a chat completion, in which the task's own
    input `body` has the last word; scripts get the task's inputs and the messages.
    """
    definition = await call.ctx.doors.definition(Kind.CONNECTOR, str(block.get("name")))
    inputs = {key: value for key, value in call.inputs.items() if value is not None}
    if definition is not None and filetype_of(definition) == SCRIPT:
        inputs = {"messages": list(request.messages), **inputs}
    else:
        body = inputs.get("body")
        inputs = {"body": {**_body(request), **(body if isinstance(body, Mapping) else {})}}
    result = await call_connector(replace(call, inputs=inputs), block)
    answer = result.subject
    data = answer.value if isinstance(answer, ConnectorResult) else answer
    text = data if isinstance(data, str) else _said(data)
    call.ctx.count(_usage(data))
    if request.schema is not None:
        return TaskResult(answer, await _structured(call, text, request.schema))
    if _is_live(block):
        await call.ctx.say(text)
    return TaskResult(FreeText(text) if isinstance(data, str) else answer)


async def _structured(
    call: TaskCall, text: str, schema: Mapping[str, Any]
) -> tuple[Mapping[str, Any], ...]:
    """What the schema asks for, when the connector's answer holds it: keys that `$` may lack."""
    try:
        answer = await read_checked(text, schema, call.where)
    except AnswerInvalid as invalid:
        log.info("answer.unstructured", where=call.where, problem=str(invalid))
        return ()
    return (answer,) if isinstance(answer, Mapping) else ()


def _said(data: Any) -> str:
    """The text of a chat completion; empty when it is none."""
    choices = data.get("choices") if isinstance(data, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, str) else ""


def _usage(data: Any) -> Usage:
    usage = data.get("usage") if isinstance(data, Mapping) else None
    usage = usage if isinstance(usage, Mapping) else {}
    counts = (usage.get(key) for key in ("prompt_tokens", "completion_tokens"))
    return Usage(*(count if type(count) is int and count > 0 else 0 for count in counts))


def _body(request: ChatRequest) -> dict[str, Any]:
    body = {
        "model": request.model,
        "messages": list(request.messages),
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    return {key: value for key, value in body.items() if value is not None}


def _make_request(call: TaskCall, prompt: Prompt | None, block: Mapping[str, Any]) -> ChatRequest:
    messages = build_messages(prompt, _told(call))
    if not messages and "body" not in call.inputs:
        raise TaskFailed(
            f"{call.where} has nothing to ask: its prompt has no instruction and all its inputs "
            "are empty. Give it inputs, or a condition."
        )
    parameters = {**block, **{k: v for k, v in call.inputs.items() if v is not None}}
    model = block.get("model") or block.get("model_name")
    max_tokens = read_number(parameters.get("max_tokens"))
    timeout = read_number(parameters.get("timeout"))
    if timeout is not None and timeout > MILLISECONDS_FROM:
        timeout /= 1000
    return ChatRequest(
        messages=messages,
        model=model if isinstance(model, str) and model else None,
        temperature=read_number(parameters.get("temperature")),
        max_tokens=int(max_tokens) if max_tokens else None,
        timeout_seconds=timeout or None,
        schema=prompt.schema if prompt else None,
    )


def _told(call: TaskCall) -> dict[str, Any]:
    """The inputs without the connector's credentials, which parametrise a model and are no text."""
    secret = call.credentials
    return {
        key: value
        for key, value in call.inputs.items()
        if value is None or key not in secret or secret[key] != value
    }
