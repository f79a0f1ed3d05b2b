"""Embeddings of an OpenAI-compatible server: texts in batches, vectors checked before use."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import httpx
import orjson

from machina.connectors.llm.base import Embeddings, Usage
from machina.connectors.llm.connection import BROKEN, body_chunks, broken
from machina.connectors.llm.endpoint import Endpoint, encode_body
from machina.connectors.llm.refusals import Callee, refused_inside
from machina.connectors.llm.wait_clock import WaitClock
from machina.errors import ModelFailed

BATCH_TEXTS: Final = 64
BATCH_CHARS: Final = 200_000
"""Of one request."""
MAX_TEXT_CHARS: Final = 32_000
"""What follows in a text is left out; no model reads more at once."""
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
MAX_DIMENSIONS: Final = 16_384

_LARGE_BODY: Final = 64 * 1024
_BLANK: Final = " "  # an empty text is refused


async def embed_texts(
    endpoint: Endpoint, texts: Sequence[str], model: str, timeout_seconds: float | None
) -> Embeddings:
    """One vector per text; see `Embedder.embed`."""
    vectors: list[list[float]] = []
    prompt_tokens = 0
    clock = WaitClock(endpoint.limits.total_for(timeout_seconds), endpoint.host)
    try:
        for batch in batches(texts):
            answer = await _ask(endpoint, batch, model, clock)
            vectors.extend(answer)
            prompt_tokens += answer.usage.prompt_tokens
    finally:
        clock.close()
    _check_lengths(vectors, endpoint.host)
    return Embeddings(vectors, usage=Usage(prompt_tokens=prompt_tokens), model=model)


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in requests of a bounded number and size, none of them empty or too long."""
    batch: list[str] = []
    chars = 0
    for text in texts:
        text = text[:MAX_TEXT_CHARS] if text.strip() else _BLANK
        if batch and (len(batch) == BATCH_TEXTS or chars + len(text) > BATCH_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch


async def _ask(
    endpoint: Endpoint, batch: Sequence[str], model: str, clock: WaitClock
) -> Embeddings:
    """The vectors of one batch; a call that broke off is tried again."""
    body = encode_body({"model": model, "input": list(batch), "encoding_format": "float"})
    retries = endpoint.retries()
    while True:
        try:
            return await _ask_once(endpoint, body, len(batch), endpoint.callee(model), clock)
        except ModelFailed as failure:
            pause = retries.pause_after(failure, clock.seconds_left)
            if pause is None:
                raise
            endpoint.note_retry(failure, retries.tries, pause)
        await endpoint.patience.sleep(pause)


async def _ask_once(
    endpoint: Endpoint, body: bytes, count: int, callee: Callee, clock: WaitClock
) -> Embeddings:
    sent_at = clock.now()
    response = await endpoint.send(endpoint.url("/embeddings"), body, clock, sent_at)
    try:
        if not response.is_success:
            raise await endpoint.refusal(response, callee, clock)
        said = await _read_body(endpoint, response, clock, sent_at)
    finally:
        await response.aclose()
    if len(said) > _LARGE_BODY:
        return await asyncio.to_thread(_read_answer, said, count, callee)
    return _read_answer(said, count, callee)


async def _read_body(
    endpoint: Endpoint, response: httpx.Response, clock: WaitClock, sent_at: float
) -> bytes:
    limits = endpoint.limits
    said = bytearray()
    chunks = body_chunks(response)
    while True:
        if said:
            wait = clock.waiting("between tokens", limits.between_tokens_seconds)
        else:
            wait = clock.waiting("first byte", limits.first_byte_seconds, since=sent_at)
        chunk = await _next_chunk(endpoint, chunks, wait)
        if chunk is None:
            return bytes(said)
        said += chunk
        if len(said) > MAX_BODY_BYTES:
            raise _invalid(endpoint.host, f"its answer is longer than {MAX_BODY_BYTES} bytes")


async def _next_chunk(
    endpoint: Endpoint, chunks: AsyncIterator[bytes], wait: WaitClock
) -> bytes | None:
    try:
        with wait:
            return await anext(chunks)
    except StopAsyncIteration:
        return None
    except BROKEN as error:
        raise broken(error, endpoint.host, endpoint.limits.connect_seconds) from error


def _read_answer(said: bytes, count: int, callee: Callee) -> Embeddings:
    try:
        payload = orjson.loads(said)
    except orjson.JSONDecodeError:
        if said.lstrip().startswith(b"{") and not said.rstrip().endswith(b"}"):
            raise ModelFailed(
                f"{callee.host} cut the connection within its answer.",
                code="provider_cut",
                retryable=True,
            ) from None
        raise _invalid(
            callee.host, f"its embeddings are no JSON: check {callee.url_variable} and the model"
        ) from None
    if isinstance(payload, dict) and payload.get("error"):
        raise refused_inside(payload, callee)
    rows = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(rows, list) or len(rows) != count:
        raise _invalid(callee.host, f"it was asked for {count} vectors and sent something else")
    vectors = [_vector(row, callee.host) for row in _in_order(rows)]
    return Embeddings(vectors, usage=_usage_of(payload.get("usage")))


def _in_order(rows: list[Any]) -> list[Any]:
    """By their `index`, unless a server that keeps the order left it out."""
    by_index: dict[int, Any] = {}
    for row in rows:
        number = row.get("index") if isinstance(row, dict) else None
        if type(number) is int:
            by_index[number] = row
    numbers = range(len(rows))
    return [by_index[n] for n in numbers] if by_index.keys() == set(numbers) else rows


def _vector(row: Any, host: str) -> list[float]:
    values = row.get("embedding") if isinstance(row, dict) else None
    if not isinstance(values, list) or not 0 < len(values) <= MAX_DIMENSIONS:
        raise _invalid(host, "it sent an embedding that is no vector")
    # `type` and not isinstance: true is no number here.
    if not all(type(v) in (float, int) and math.isfinite(v) for v in values):
        raise _invalid(host, "it sent an embedding whose values are no numbers")
    return [float(v) for v in values]


def _check_lengths(vectors: Sequence[list[float]], host: str) -> None:
    if len({len(vector) for vector in vectors}) > 1:
        raise _invalid(host, "it sent embeddings of different lengths")


def _usage_of(usage: Any) -> Usage:
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Usage(prompt_tokens=tokens if type(tokens) is int and tokens > 0 else 0)


def _invalid(host: str, what: str) -> ModelFailed:
    return ModelFailed(
        f"{host} answered nonsense: {what}.", code="provider_invalid", retryable=False
    )
