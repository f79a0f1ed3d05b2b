"""Any server that speaks OpenAI's chat-completions protocol: the fast path to a model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

import structlog

from machina.connectors.llm.answer_reader import AnswerReader
from machina.connectors.llm.base import ChatDelta, ChatRequest, Embeddings, Message
from machina.connectors.llm.connection import BROKEN, body_chunks, broken
from machina.connectors.llm.endpoint import Endpoint, Patience, encode_body
from machina.connectors.llm.openai_embeddings import embed_texts
from machina.connectors.llm.options import ProviderLimits
from machina.connectors.llm.refusals import KEY_VARIABLE, URL_VARIABLE
from machina.connectors.llm.response_format import response_format
from machina.connectors.llm.retries import RetryPolicy
from machina.connectors.llm.wait_clock import WaitClock
from machina.errors import ModelFailed

log = structlog.get_logger(__name__)

PASSED_ON: Final = (
    "frequency_penalty",
    "max_completion_tokens",
    "presence_penalty",
    "reasoning_effort",
    "seed",
    "stop",
    "top_p",
    "user",
)
"""The names in `ChatRequest.extra` that go into the request."""

MESSAGE_KEYS: Final = frozenset(
    ("audio", "content", "function_call", "name", "refusal", "role", "tool_call_id", "tool_calls")
)
"""What a message may hold by the protocol. Others are sent too, until the provider refuses them."""

_END_SECONDS: Final = 0.1


class OpenAICompatibleProvider:
    """OpenAI, vLLM, Ollama, llama.cpp, OpenRouter and others, over one pooled HTTP client."""

    name = "openai-compatible"

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        default_model: str,
        limits: ProviderLimits | None = None,
        *,
        retry_policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        default_embedding_model: str = "text-embedding-3-small",
        key_variable: str = KEY_VARIABLE,
        url_variable: str = URL_VARIABLE,
    ) -> None:
        """`base_url` ends where `/chat/completions` begins; None is OpenAI's own.

        Raises:
            SettingsInvalid: when the base URL or the key cannot be used in a request at all.
        """
        self._limits = limits or ProviderLimits()
        patience = Patience(retry_policy or RetryPolicy(), sleep, jitter)
        self._endpoint = Endpoint(
            base_url,
            api_key,
            self._limits,
            patience,
            key_variable=key_variable,
            url_variable=url_variable,
        )
        self._url = self._endpoint.url("/chat/completions")
        self._host = self._endpoint.host
        self._default_model = default_model
        self._default_embedding_model = default_embedding_model
        self._is_strict = False  # whether it refused a message for a key like `timestamp`

    async def aclose(self) -> None:
        """Closes pooled connections."""
        await self._endpoint.aclose()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Streams the answer; see `Provider.chat`. Tries again only while nothing was said."""
        payload = _payload(request, self._default_model)
        if self._is_strict:
            payload["messages"] = _plain(request.messages)
        body = encode_body(payload)
        clock = WaitClock(self._limits.total_for(request.timeout_seconds), self._host)
        retries = self._endpoint.retries()
        has_spoken = False
        try:
            while True:
                try:
                    async with aclosing(self._try_once(request, body, clock)) as deltas:
                        async for delta in deltas:
                            has_spoken = True
                            yield delta
                    return
                except ModelFailed as failure:
                    failure.details["partial"] = has_spoken
                    if not has_spoken and _refuses_keys(failure, payload["messages"]):
                        self._is_strict = True
                        payload["messages"] = _plain(request.messages)
                        body = encode_body(payload)
                        continue
                    pause = None if has_spoken else retries.pause_after(failure, clock.seconds_left)
                    if pause is None:
                        raise
                    self._endpoint.note_retry(failure, retries.tries, pause)
                await self._endpoint.patience.sleep(pause)
        finally:
            clock.close()

    async def embed(
        self,
        texts: Sequence[str],
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> Embeddings:
        """One vector per text; see `Embedder.embed`."""
        model = model or self._default_embedding_model
        return await embed_texts(self._endpoint, texts, model, timeout_seconds)

    async def _try_once(
        self, request: ChatRequest, body: bytes, clock: WaitClock
    ) -> AsyncGenerator[ChatDelta, None]:
        callee = self._endpoint.callee(request.model or self._default_model)
        sent_at = clock.now()
        response = await self._endpoint.send(self._url, body, clock, sent_at)
        try:
            if not response.is_success:
                raise await self._endpoint.refusal(response, callee, clock)
            reader = AnswerReader(self._limits, callee, request.max_tokens)
            chunks = body_chunks(response)
            while (chunk := await self._next_chunk(chunks, reader, clock, sent_at)) is not None:
                for text in reader.feed(chunk):
                    yield ChatDelta(text)
            for text in reader.end():
                yield ChatDelta(text)
            if reader.is_done:
                await self._pass_end(chunks, clock)
            yield reader.last_delta()
        finally:
            # Closes the socket before it waits for anything, unless the body was read to its end.
            await response.aclose()

    async def _next_chunk(
        self, chunks: AsyncIterator[bytes], reader: AnswerReader, clock: WaitClock, sent_at: float
    ) -> bytes | None:
        limits = self._limits
        if reader.is_done:
            return None
        if reader.is_complete:
            try:
                return await self._read(
                    chunks, clock.waiting("after finish", limits.after_finish_seconds)
                )
            except ModelFailed as failure:
                log.debug("provider.end_missing", host=self._host, code=failure.code)
                return None
        if reader.has_begun:
            wait = clock.waiting("between tokens", limits.between_tokens_seconds)
        else:
            wait = clock.waiting("first byte", limits.first_byte_seconds, since=sent_at)
        return await self._read(chunks, wait)

    async def _pass_end(self, chunks: AsyncIterator[bytes], clock: WaitClock) -> None:
        """Reads the end of the body, if it is there, so that the connection can be used again."""
        try:
            await self._read(chunks, clock.waiting("end", _END_SECONDS))
        except ModelFailed as failure:
            log.debug("provider.end_missing", host=self._host, code=failure.code)

    async def _read(self, chunks: AsyncIterator[bytes], wait: WaitClock) -> bytes | None:
        try:
            with wait:
                return await chunks.__anext__()
        except StopAsyncIteration:
            return None
        except BROKEN as error:
            raise broken(error, self._host, self._limits.connect_seconds) from error


def _plain(messages: Sequence[Message]) -> list[Message]:
    """The messages with the keys of the protocol only."""
    return [{key: m[key] for key in m if key in MESSAGE_KEYS} for m in messages]


def _refuses_keys(failure: ModelFailed, messages: Sequence[Message]) -> bool:
    """Whether a provider names a key of ours that is not of the protocol."""
    if failure.code != "provider_rejected":
        return False
    keys = {key for message in messages for key in message if key not in MESSAGE_KEYS}
    return any(key and key in failure.message for key in keys)


def _payload(request: ChatRequest, default_model: str) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "model": request.model or default_model,
        "messages": list(request.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.temperature is not None:
        payload["temperature"] = request.temperature
    if request.max_tokens is not None:
        payload["max_tokens"] = request.max_tokens
    if request.schema is not None:
        payload["response_format"] = response_format(request.schema)
    payload.update({name: request.extra[name] for name in PASSED_ON if name in request.extra})
    return payload
