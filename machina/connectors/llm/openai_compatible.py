"""Any server that speaks OpenAI's chat-completions protocol: the fast path to a model."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import httpx
import orjson
import structlog

from machina.connectors.llm.answer_reader import AnswerReader
from machina.connectors.llm.base import ChatDelta, ChatRequest
from machina.connectors.llm.connection import (
    BROKEN,
    body_chunks,
    broken,
    connect_timeout,
    make_client,
)
from machina.connectors.llm.options import OPENAI_BASE_URL, ProviderLimits
from machina.connectors.llm.refusals import Callee, parse_retry_after, refused_status
from machina.connectors.llm.response_format import response_format
from machina.connectors.llm.retries import Retries, RetryBudget, RetryPolicy
from machina.connectors.llm.wait_clock import WaitClock
from machina.errors import ModelFailed, SettingsInvalid
from machina.events import encode_json

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

_MAX_REFUSAL_BYTES: Final = 64 * 1024
_REFUSAL_SECONDS: Final = 5.0
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
    ) -> None:
        """`base_url` ends where `/chat/completions` begins; None is OpenAI's own.

        Raises:
            SettingsInvalid: when the base URL or the key cannot be used in a request at all.
        """
        self._url = _chat_url(base_url or OPENAI_BASE_URL)
        self._api_key = _checked_key(api_key)
        self._host = self._url.netloc.decode("ascii")
        self._default_model = default_model
        self._limits = limits or ProviderLimits()
        self._policy = retry_policy or RetryPolicy()
        self._budget = RetryBudget()
        self._sleep = sleep
        self._jitter = jitter
        self._client = make_client(self._url, self._api_key)

    async def aclose(self) -> None:
        """Closes pooled connections."""
        await self._client.aclose()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Streams the answer; see `Provider.chat`. Tries again only while nothing was said."""
        body = _encode(_payload(request, self._default_model))
        clock = WaitClock(self._limits.total_for(request.timeout_seconds), self._host)
        retries = Retries(self._policy, self._budget, self._jitter)
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
                    pause = None if has_spoken else retries.pause_after(failure, clock.seconds_left)
                    if pause is None:
                        raise
                    log.info(
                        "provider.retried",
                        host=self._host,
                        code=failure.code,
                        tries=retries.tries,
                        pause_seconds=round(pause, 3),
                    )
                await self._sleep(pause)
        finally:
            clock.close()

    async def _try_once(
        self, request: ChatRequest, body: bytes, clock: WaitClock
    ) -> AsyncGenerator[ChatDelta, None]:
        callee = Callee(self._host, request.model or self._default_model, self._api_key)
        sent_at = clock.now()
        response = await self._send(body, clock, sent_at)
        try:
            if not response.is_success:
                raise await self._refusal(response, callee, clock)
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

    async def _send(self, body: bytes, clock: WaitClock, sent_at: float) -> httpx.Response:
        connect_seconds = self._limits.connect_seconds
        request = self._client.build_request(
            "POST", self._url, content=body, timeout=connect_timeout(connect_seconds)
        )
        try:
            with clock.waiting("first byte", self._limits.first_byte_seconds, since=sent_at):
                return await self._client.send(request, stream=True)
        except BROKEN as error:
            raise broken(error, self._host, connect_seconds) from error

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

    async def _refusal(
        self, response: httpx.Response, callee: Callee, clock: WaitClock
    ) -> ModelFailed:
        said = bytearray()
        try:
            with clock.waiting("refusal", _REFUSAL_SECONDS):
                async for chunk in body_chunks(response):
                    said += chunk[: _MAX_REFUSAL_BYTES - len(said)]
                    if len(said) == _MAX_REFUSAL_BYTES:
                        break
        except (ModelFailed, *BROKEN) as error:
            log.debug("provider.refusal_cut", host=self._host, error=type(error).__name__)
        retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
        return refused_status(response.status_code, bytes(said), callee, retry_after=retry_after)


def _chat_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.strip())
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsInvalid(
            "OPENAI_BASE_URL is not the URL of a server: it must look like https://host/v1.",
            field="OPENAI_BASE_URL",
        )
    if url.userinfo:
        raise SettingsInvalid(
            "OPENAI_BASE_URL holds credentials: put the key into OPENAI_API_KEY.",
            field="OPENAI_BASE_URL",
        )
    return url.copy_with(path=url.path.rstrip("/") + "/chat/completions")


def _checked_key(key: str | None) -> str | None:
    key = (key or "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise SettingsInvalid(
            "OPENAI_API_KEY holds characters that no key has: copy it again, without line breaks.",
            field="OPENAI_API_KEY",
        )
    return key or None


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


def _encode(payload: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:  # dates, lone surrogates, integers over 64 bits
        return encode_json(payload)
