"""One OpenAI-compatible server: where it is, who we are there, how a request goes out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson
import structlog

from machina.connectors.llm.connection import (
    BROKEN,
    body_chunks,
    broken,
    connect_timeout,
    make_client,
)
from machina.connectors.llm.options import OPENAI_BASE_URL, ProviderLimits
from machina.connectors.llm.refusals import (
    KEY_VARIABLE,
    URL_VARIABLE,
    Callee,
    parse_retry_after,
    refused_status,
)
from machina.connectors.llm.retries import Retries, RetryBudget, RetryPolicy
from machina.connectors.llm.wait_clock import WaitClock
from machina.errors import ModelFailed, SettingsInvalid
from machina.events import encode_json

log = structlog.get_logger(__name__)

_MAX_REFUSAL_BYTES: Final = 64 * 1024
_REFUSAL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How calls are tried again; tests give a `sleep` that does not and a `jitter` they know."""

    policy: RetryPolicy
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random


class Endpoint:
    """A base URL and a key, over one pooled HTTP client; chat and embeddings share it."""

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        limits: ProviderLimits,
        patience: Patience,
        *,
        key_variable: str = KEY_VARIABLE,
        url_variable: str = URL_VARIABLE,
    ) -> None:
        """`base_url` ends where `/chat/completions` begins; None is OpenAI's own.

        Raises:
            SettingsInvalid: when the base URL or the key cannot be used in a request at all.
        """
        self._base = read_base_url(base_url or OPENAI_BASE_URL, url_variable, key_variable)
        self._api_key = _checked_key(api_key, key_variable)
        self._key_variable = key_variable
        self._url_variable = url_variable
        self.host = self._base.netloc.decode("ascii")
        self.limits = limits
        self.patience = patience
        self._budget = RetryBudget()
        self._client = make_client(self._base, self._api_key)

    async def aclose(self) -> None:
        """Closes pooled connections."""
        await self._client.aclose()

    def url(self, path: str) -> httpx.URL:
        """The address of a path below the base URL."""
        return self._base.copy_with(path=self._base.path.rstrip("/") + path)

    def callee(self, model: str) -> Callee:
        """Whom messages about a call of this model name."""
        return Callee(self.host, model, self._api_key, self._key_variable, self._url_variable)

    def retries(self) -> Retries:
        """The tries of one call; all calls of this endpoint share a budget."""
        return Retries(self.patience.policy, self._budget, self.patience.jitter)

    async def send(
        self, url: httpx.URL, body: bytes, clock: WaitClock, sent_at: float
    ) -> httpx.Response:
        """Sends a request; the response's head has come, its body has not.

        Raises:
            ModelFailed: no connection, or no answer in time.
        """
        connect_seconds = self.limits.connect_seconds
        request = self._client.build_request(
            "POST", url, content=body, timeout=connect_timeout(connect_seconds)
        )
        try:
            with clock.waiting("first byte", self.limits.first_byte_seconds, since=sent_at):
                return await self._client.send(request, stream=True)
        except BROKEN as error:
            raise broken(error, self.host, connect_seconds) from error

    async def refusal(
        self, response: httpx.Response, callee: Callee, clock: WaitClock
    ) -> ModelFailed:
        """What a status other than 2xx means; reads a bounded part of its body."""
        said = bytearray()
        try:
            with clock.waiting("refusal", _REFUSAL_SECONDS):
                async for chunk in body_chunks(response):
                    said += chunk[: _MAX_REFUSAL_BYTES - len(said)]
                    if len(said) == _MAX_REFUSAL_BYTES:
                        break
        except (ModelFailed, *BROKEN) as error:
            log.debug("provider.refusal_cut", host=self.host, error=type(error).__name__)
        retry_after = parse_retry_after(response.headers.get("Retry-After"), time.time())
        return refused_status(response.status_code, bytes(said), callee, retry_after=retry_after)

    def note_retry(self, failure: ModelFailed, tries: int, pause_seconds: float) -> None:
        """Logs that a call is tried again."""
        log.info(
            "provider.retried",
            host=self.host,
            code=failure.code,
            tries=tries,
            pause_seconds=round(pause_seconds, 3),
        )


def encode_body(payload: dict[str, Any]) -> bytes:
    """The body of a request."""
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError:  # dates, lone surrogates, integers over 64 bits
        return encode_json(payload)


def read_base_url(base_url: str, variable: str, key_variable: str) -> httpx.URL:
    """The URL that requests go to; its text, which may hold a password, is in no message.

    Args:
        base_url: as the operator wrote it.
        variable: where it comes from, for messages.
        key_variable: where a key belongs, for messages.

    Raises:
        SettingsInvalid: it is no URL of a server, or holds credentials.
    """
    try:
        url = httpx.URL(base_url.strip())
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsInvalid(
            f"{variable} is not the URL of a server: it must look like https://host/v1.",
            field=variable,
        )
    if url.userinfo:
        raise SettingsInvalid(
            f"{variable} holds credentials: put the key into {key_variable}.",
            field=variable,
        )
    return url


def _checked_key(key: str | None, variable: str) -> str | None:
    key = (key or "").strip()
    if not (key.isascii() and (key.isprintable() or not key)):
        raise SettingsInvalid(
            f"{variable} holds characters that no key has: copy it again, without line breaks.",
            field=variable,
        )
    return key or None
