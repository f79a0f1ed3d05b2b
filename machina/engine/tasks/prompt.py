"""The `prompt` task: asks a model, says its answer as it comes, reads it by a schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from machina.connectors.llm.base import ChatDelta, ChatRequest, Message, Provider
from machina.definitions import Kind, Prompt
from machina.engine.blocks import evaluate_value
from machina.engine.tasks.answers import AnswerInvalid, read_answer
from machina.engine.tasks.base import TaskCall, TaskResult
from machina.engine.tasks.messages import build_messages
from machina.errors import ModelFailed, TaskFailed
from machina.expressions import FreeText

log = structlog.get_logger(__name__)

COMMANDS: Final = ("invoke_prompt", "invoke_chat")
"""Commands of LLM connectors that stand for "ask the model"."""
MAX_ANSWER_CHARS: Final = 1_000_000
MILLISECONDS_FROM: Final = 600
"""A `timeout` above this cannot mean seconds: authors then wrote milliseconds."""


async def run_prompt(call: TaskCall) -> TaskResult:
    """`$` in the outputs is the answer: a dictionary with a schema, else text."""
    prompt = await _load_prompt(call)
    connector = await _connector(call, prompt)
    request = _make_request(call, prompt, connector)
    conversation = _Conversation(call, call.ctx.doors.provider(connector), request)
    if request.schema is not None:
        return TaskResult(await conversation.structured())
    return TaskResult(FreeText(await conversation.text(live=connector.get("stream") is True)))


@dataclass(frozen=True, slots=True)
class _Conversation:
    """One or more calls of a provider in the name of one task."""

    call: TaskCall
    provider: Provider
    request: ChatRequest

    async def text(self, *, live: bool = False) -> str:
        """The whole answer; `live`: what comes is part of what the run says."""
        pieces: list[str] = []
        length = 0
        async with _deltas(self.provider, self.request) as deltas:
            async for delta in deltas:
                if delta.usage is not None:
                    self.call.ctx.count(delta.usage)
                if not delta.text:
                    continue
                length += len(delta.text)
                if length > MAX_ANSWER_CHARS:
                    raise ModelFailed(
                        f"The model's answer to {self.call.where} is longer than "
                        f"{MAX_ANSWER_CHARS} characters; set max_tokens."
                    )
                pieces.append(delta.text)
                if live:
                    await self.call.ctx.say(delta.text)
        return "".join(pieces)

    async def structured(self) -> dict[str, Any]:
        """The answer as an object; the model gets one chance to repair it."""
        answer = await self.text()
        try:
            return read_answer(answer)
        except AnswerInvalid as invalid:
            log.warning("answer.invalid", where=self.call.where, problem=str(invalid))
            messages = _ask_again(self.request.messages, answer, invalid)
        repaired = await replace(self, request=replace(self.request, messages=messages)).text()
        try:
            return read_answer(repaired)
        except AnswerInvalid as invalid:
            raise ModelFailed(
                f"The model did not answer {self.call.where} by its schema: {invalid}; "
                "simplify the schema or use another model."
            ) from None


@asynccontextmanager
async def _deltas(
    provider: Provider, request: ChatRequest
) -> AsyncIterator[AsyncIterator[ChatDelta]]:
    """The answer's deltas. Leaving the block closes the connection, however it is left."""
    deltas = provider.chat(request)
    try:
        yield deltas
    finally:
        close = getattr(deltas, "aclose", None)
        if close is not None:
            await close()


async def _load_prompt(call: TaskCall) -> Prompt | None:
    """The prompt that the task names, else the one of the task's own name; None: free text."""
    named = call.task.raw.get("prompt")
    name = named.get("name") if isinstance(named, Mapping) else named
    name = name if isinstance(name, str) and name else call.task.name
    raw = await call.ctx.doors.definition(Kind.PROMPT, name)
    if raw is None:
        log.info("prompt.undefined", where=call.where, prompt=name)
        return None
    return Prompt.read(raw)


async def _connector(call: TaskCall, prompt: Prompt | None) -> dict[str, Any]:
    """The connector block: the task's own over the prompt's default, computed values computed."""
    block = {**(prompt.connector if prompt else {}), **call.task.connector}
    for key, value in block.items():
        if isinstance(value, str) and "$" in value:
            where = f"{call.where}, connector.{key}"
            block[key] = await evaluate_value(call.ctx, value, call.scope, where)
    command = block.get("command") or COMMANDS[0]
    if command not in COMMANDS:
        raise TaskFailed(
            f"{call.where} asks connector '{block.get('name')}' for '{command}'; "
            f"a prompt task of this server uses {' or '.join(COMMANDS)}."
        )
    return block


def _make_request(
    call: TaskCall, prompt: Prompt | None, connector: Mapping[str, Any]
) -> ChatRequest:
    messages = build_messages(prompt, call.inputs)
    if not messages:
        raise TaskFailed(
            f"{call.where} has nothing to ask: its prompt has no instruction and all its inputs "
            "are empty. Give it inputs, or a condition."
        )
    parameters = {**connector, **{k: v for k, v in call.inputs.items() if v is not None}}
    model = connector.get("model")
    max_tokens = _number(parameters.get("max_tokens"))
    timeout = _number(parameters.get("timeout"))
    if timeout is not None and timeout > MILLISECONDS_FROM:
        timeout /= 1000
    return ChatRequest(
        messages=messages,
        model=model if isinstance(model, str) and model else None,
        temperature=_number(parameters.get("temperature")),
        max_tokens=int(max_tokens) if max_tokens else None,
        timeout_seconds=timeout or None,
        schema=prompt.schema if prompt else None,
    )


def _number(value: Any) -> float | None:
    """A parameter as a number that makes sense; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < float("inf") else None


def _ask_again(messages: Sequence[Message], answer: str, invalid: AnswerInvalid) -> list[Message]:
    return [
        *messages,
        {"role": "assistant", "content": answer},
        {
            "role": "user",
            "content": f"This answer cannot be used: {invalid}. "
            "Answer again with the JSON object alone.",
        },
    ]
