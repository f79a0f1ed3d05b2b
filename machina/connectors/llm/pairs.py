"""What a *connector* task gets when it asks a model's connector for its model.

On the reference server `invoke_prompt` and `invoke_embedding` return a live model object, which no
template can use in an expression. Here they do what such an object is for:

- `invoke_prompt` with `messages` (a history or a text), `prompt`, `text`, … among its inputs asks
  the model; `data` is the text, and the envelope has `usage`.
- `invoke_embedding` with `text`, `texts`, … among its inputs embeds; `data` is one vector for one
  text, and a list of vectors for a list.
- Without any of them `data` describes the model that the routing table leads to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.llm.base import ChatRequest, Message, Provider, RoutedEmbedder, Usage
from machina.connectors.llm.deltas import open_deltas
from machina.connectors.llm.parameters import read_number
from machina.connectors.llm.routes import Route
from machina.errors import ConnectorFailed

EMBEDDING: Final = "invoke_embedding"
TEXT_INPUTS: Final = ("prompt", "text", "query", "input", "question", "content")
"""Inputs that hold what to say to a model, the first one there is."""
EMBEDDED_INPUTS: Final = ("texts", "documents", *TEXT_INPUTS)
SYSTEM_INPUTS: Final = ("system", "system_prompt", "instruction")
MAX_TEXTS: Final = 2_000
"""Texts that one call may embed."""
MAX_ANSWER_CHARS: Final = 1_000_000


class Models(Protocol):
    """The routing table at work; a worker's `Providers`."""

    def chat_route(self, connector: Mapping[str, Any]) -> Route: ...
    def embedding_route(self, connector: Mapping[str, Any]) -> Route: ...
    def provider_for(self, connector: Mapping[str, Any]) -> Provider: ...
    def embedder_for(self, connector: Mapping[str, Any]) -> RoutedEmbedder: ...


async def call_model(models: Models, call: ConnectorCall) -> ConnectorReply:
    """Answers a call of `invoke_prompt` or `invoke_embedding`; no script runs.

    Raises:
        ModelFailed: see `Provider.chat` and `Embedder.embed`.
        ConnectorFailed: the inputs are no texts, or too many.
    """
    named = {key: call.inputs[key] for key in ("model", "provider") if call.inputs.get(key)}
    block = {**call.block, **named, "name": call.name, "command": call.command}
    if call.command == EMBEDDING:
        return await _embed(models, call, block)
    messages = _messages(call.inputs)
    if not messages:
        return _describe(call, models.chat_route(block))
    return await _ask(models.provider_for(block), messages, call)


async def _ask(
    provider: Provider, messages: Sequence[Message], call: ConnectorCall
) -> ConnectorReply:
    request = ChatRequest(
        messages=messages,
        temperature=read_number(call.inputs.get("temperature")),
        max_tokens=int(read_number(call.inputs.get("max_tokens")) or 0) or None,
        timeout_seconds=call.timeout_seconds,
    )
    pieces: list[str] = []
    length, usage = 0, Usage()
    async with open_deltas(provider, request) as deltas:
        async for delta in deltas:
            pieces.append(delta.text)
            length += len(delta.text)
            usage = delta.usage or usage
            if length > MAX_ANSWER_CHARS:
                raise ConnectorFailed(
                    f"The model's answer to {call.where} is longer than {MAX_ANSWER_CHARS} "
                    "characters; set max_tokens."
                )
    return ConnectorReply("".join(pieces), {"status": True, "usage": _usage(usage)})


async def _embed(models: Models, call: ConnectorCall, block: Mapping[str, Any]) -> ConnectorReply:
    given = _first(call.inputs, EMBEDDED_INPUTS)
    if given is None:
        return _describe(call, models.embedding_route(block))
    texts = [given] if isinstance(given, str) else list(given)
    if len(texts) > MAX_TEXTS or not all(isinstance(text, str) for text in texts):
        raise ConnectorFailed(
            f"{call.where} asks for embeddings of something else than a text or a list of at most "
            f"{MAX_TEXTS} texts; correct its inputs."
        )
    vectors = await models.embedder_for(block).embed(texts, timeout_seconds=call.timeout_seconds)
    envelope = {"status": True, "model": vectors.model, "usage": _usage(vectors.usage)}
    return ConnectorReply(vectors[0] if isinstance(given, str) else list(vectors), envelope)


def _messages(inputs: Mapping[str, Any]) -> list[Message]:
    history = inputs.get("messages")
    if isinstance(history, list | tuple) and history:
        told = [message for message in history if _is_message(message)]
    else:
        text = history if isinstance(history, str) and history else _first(inputs, TEXT_INPUTS)
        told = [{"role": "user", "content": str(text)}] if isinstance(text, str) else []
    system = _first(inputs, SYSTEM_INPUTS)
    if told and isinstance(system, str):
        return [{"role": "system", "content": str(system)}, *told]
    return told


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str)


def _first(inputs: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The first of these inputs that holds a text or a list with something in it."""
    given = (inputs.get(name) for name in names)
    return next((value for value in given if isinstance(value, str | list | tuple) and value), None)


def _describe(call: ConnectorCall, route: Route) -> ConnectorReply:
    data = {
        "connector": call.name,
        "command": call.command,
        "provider": route.provider,
        "model": route.model,
    }
    return ConnectorReply(data)


def _usage(usage: Usage) -> dict[str, int]:
    return {**asdict(usage), "total_tokens": usage.total_tokens}
