"""One or more calls of a model in the name of one task: its text, or an answer by a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from machina.connectors.llm.base import ChatRequest, Message, Provider
from machina.connectors.llm.deltas import open_deltas
from machina.engine.borders import compact_json
from machina.engine.tasks.answers import AnswerInvalid, read_checked
from machina.engine.tasks.base import TaskCall
from machina.errors import ModelFailed

log = structlog.get_logger(__name__)

MAX_ANSWER_CHARS: Final = 1_000_000
MAX_SCHEMA_CHARS: Final = 20_000
"""A schema longer than this is not repeated in words."""

_SCHEMA_WORDS: Final = ("response_format", "json_schema", "json schema", "structured output")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request and the provider that answers it."""

    call: TaskCall
    provider: Provider
    request: ChatRequest

    async def text(self, *, live: bool = False) -> str:
        """The whole answer; `live`: what comes is part of what the run says.

        Raises:
            ModelFailed: see `Provider.chat`; or the answer is too long.
        """
        pieces: list[str] = []
        length = 0
        async with open_deltas(self.provider, self.request) as deltas:
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

    async def structured(self, schema: Mapping[str, Any]) -> Any:
        """The answer as the schema asks for it; the model gets one chance to repair it.

        Raises:
            ModelFailed: see `Provider.chat`; or the repaired answer is no better.
            DefinitionInvalid: the schema takes too long to check.
        """
        where = self.call.where
        conversation, answer = await self._first_answer(schema)
        try:
            return await read_checked(answer, schema, where)
        except AnswerInvalid as invalid:
            log.warning("answer.invalid", where=where, problem=str(invalid))
            messages = _ask_again(conversation.request.messages, answer, invalid, schema)
        repaired = await conversation._with(messages).text()
        try:
            return await read_checked(repaired, schema, where)
        except AnswerInvalid as invalid:
            raise ModelFailed(
                f"The model did not answer {where} by its schema: {invalid}; "
                "simplify the schema or use another model."
            ) from None

    async def _first_answer(self, schema: Mapping[str, Any]) -> tuple[Conversation, str]:
        """Asks with the schema; in words only, when the provider cannot take it."""
        try:
            return self, await self.text()
        except ModelFailed as failure:
            if not _refuses_schema(failure):
                raise
            log.warning("schema.refused", where=self.call.where, error=failure.message)
        told: Message = {"role": "user", "content": _wanted(schema)}
        plain = replace(self.request, schema=None, messages=[*self.request.messages, told])
        conversation = replace(self, request=plain)
        return conversation, await conversation.text()

    def _with(self, messages: Sequence[Message]) -> Conversation:
        return replace(self, request=replace(self.request, messages=messages))


def _refuses_schema(failure: ModelFailed) -> bool:
    said = failure.message.casefold()
    return failure.code == "provider_rejected" and any(word in said for word in _SCHEMA_WORDS)


def _ask_again(
    messages: Sequence[Message], answer: str, invalid: AnswerInvalid, schema: Mapping[str, Any]
) -> list[Message]:
    return [
        *messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": f"This answer cannot be used: {invalid}. {_wanted(schema)}"},
    ]


def _wanted(schema: Mapping[str, Any]) -> str:
    """What the answer must be, for providers that do not look at the schema of a request."""
    text = compact_json(schema)
    if len(text) > MAX_SCHEMA_CHARS:
        return "Answer with the JSON object alone."
    return f"Answer with the JSON alone, by this JSON schema: {text}"
