"""A model that answers from a script, deterministic and paced: for tests, and `dev` without a key.

Without a directive (see `script.py`) it greets, quotes the last user message and explains itself in
about 40 words. With a schema it answers with the schema's smallest instance. Its embeddings are
those of `local_embedding.py`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Any, Final

from machina.connectors.llm.base import ChatDelta, ChatRequest, Embeddings, Message, Usage
from machina.connectors.llm.local_embedding import embed_text
from machina.connectors.llm.options import ProviderLimits
from machina.connectors.llm.schema_answer import answer_for
from machina.connectors.llm.script import Script, parse_script
from machina.errors import ModelFailed

MAX_QUOTE: Final = 60
_WORD = re.compile(r"\s*\S+|\s+\Z")
_RETRYABLE: Final = frozenset(
    ("provider_rate_limited", "provider_unavailable", "provider_timeout", "provider_cut")
)
_DELTAS_PER_BREATH: Final = 16
_LONG_TEXT: Final = 2_000


class ScriptedProvider:
    """Answers the same to the same request. `open_calls` says how many answers are being given."""

    name = "scripted"

    def __init__(self, *, pace_seconds: float = 2.0, limits: ProviderLimits | None = None) -> None:
        """`pace_seconds` is how long an answer takes in all, unless a directive says."""
        self._pace_seconds = pace_seconds
        self._limits = limits or ProviderLimits()
        self.calls = 0
        self.open_calls = 0

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Streams the scripted answer; see `Provider.chat`."""
        self.calls += 1
        self.open_calls += 1
        has_spoken = False
        try:
            message = last_user_text(request.messages)
            script = parse_script(message)
            answer = _Answer(script, request, message)
            clock = _Clock(self._limits, request.timeout_seconds)
            delay = self._delay_seconds(script, answer)
            await clock.wait(script.first_ms / 1000, "first byte")
            async for text in _play(script, answer, delay, clock):
                has_spoken = True
                yield ChatDelta(text)
            yield answer.last_delta()
        except ModelFailed as failure:
            failure.details["partial"] = has_spoken
            raise
        finally:
            self.open_calls -= 1

    async def embed(
        self,
        texts: Sequence[str],
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> Embeddings:
        """One vector per text, the same for every `model`; see `Embedder.embed`."""
        vectors = []
        for text in texts:
            if len(text) > _LONG_TEXT:
                vectors.append(await asyncio.to_thread(embed_text, text))
            else:
                vectors.append(embed_text(text))
                await asyncio.sleep(0)
        tokens = sum(len(text.split()) for text in texts)
        return Embeddings(vectors, usage=Usage(prompt_tokens=tokens), model=self.name)

    async def aclose(self) -> None:
        """Nothing is pooled."""

    def _delay_seconds(self, script: Script, answer: _Answer) -> float:
        if script.delay_ms is not None:
            return script.delay_ms / 1000
        return self._pace_seconds / max(answer.count - 1, 1)


async def _play(
    script: Script, answer: _Answer, delay_seconds: float, clock: _Clock
) -> AsyncGenerator[str, None]:
    """The deltas at their pace, up to where the script breaks off."""
    for index, text in enumerate(answer.texts()):
        await _break_off(script, index, clock)
        if index and delay_seconds:
            await clock.wait(delay_seconds, "between tokens")
        elif index % _DELTAS_PER_BREATH == 0:
            await clock.wait(0, "between tokens")  # others run too, however fast the consumer is
        yield text
    await _break_off(script, answer.count, clock)


async def _break_off(script: Script, said: int, clock: _Clock) -> None:
    if script.fail_after == said:
        raise ModelFailed(
            f"The scripted model failed after {said} deltas, as its directive asked.",
            code=script.error,
            retryable=script.error in _RETRYABLE,
        )
    if script.disconnect_after == said:
        raise ModelFailed(
            f"The scripted model broke off after {said} deltas, as its directive asked.",
            code="provider_cut",
            retryable=True,
        )
    if script.stall_after == said:
        await clock.wait(float("inf"), "between tokens" if said else "first byte")


class _Clock:
    """The same limits as a real provider has, kept on the waits of the script."""

    def __init__(self, limits: ProviderLimits, timeout_seconds: float | None) -> None:
        self._now = asyncio.get_running_loop().time
        self._limits = limits
        self._total = limits.total_for(timeout_seconds)
        self._end = self._now() + self._total
        self._due = self._now()

    async def wait(self, seconds: float, limit: str) -> None:
        """Waits until `seconds` after the last wait was due; fails when a limit comes first."""
        now = self._now()
        # A pace is kept on average: what one wait overslept, the next one gives back.
        self._due = max(self._due + seconds, now) if seconds else now
        first = limit == "first byte"
        own = self._limits.first_byte_seconds if first else self._limits.between_tokens_seconds
        allowed, total = own, self._total
        if self._end - now < allowed:
            allowed, limit = max(self._end - now, 0), "total"
        if self._due - now <= allowed:
            return await asyncio.sleep(self._due - now)
        await asyncio.sleep(allowed)
        raise ModelFailed(
            f"The scripted model exceeded its {limit} limit of "
            f"{total if limit == 'total' else own:g} s.",
            code="provider_timeout",
            retryable=True,
            details={"limit": limit},
        )


class _Answer:
    """What will be said, cut into deltas, and what it costs."""

    def __init__(self, script: Script, request: ChatRequest, message: str) -> None:
        self._words: Sequence[str] | None = None
        self._prompt_tokens = sum(len(text_of(m).split()) for m in request.messages)
        if script.tokens is not None:
            whole = script.tokens
        else:
            self._words = _WORD.findall(_text_for(script, request, message))
            whole = len(self._words)
        limit = request.max_tokens
        self.count = whole if limit is None else min(whole, max(limit, 0))
        self._finish_reason = "stop" if self.count == whole else "length"

    def texts(self) -> Iterator[str]:
        for index in range(self.count):
            if self._words is not None:
                yield self._words[index]
            else:
                yield f" tok-{index}" if index else "tok-0"

    def last_delta(self) -> ChatDelta:
        usage = Usage(prompt_tokens=self._prompt_tokens, completion_tokens=self.count)
        return ChatDelta(finish_reason=self._finish_reason, usage=usage)


def _text_for(script: Script, request: ChatRequest, message: str) -> str:
    if script.text is not None:
        return script.text
    if request.schema is not None:
        return json.dumps(answer_for(request.schema), ensure_ascii=False, default=str)
    quote = " ".join(message.split())
    if len(quote) > MAX_QUOTE:
        quote = quote[: MAX_QUOTE - 1].rstrip() + "…"
    return (
        f"Hello! You said: “{quote}”. I am the scripted model: I need no key, I answer the same "
        "every time, one word after the other, so that you can watch a stream, cut it and resume "
        "it. Set OPENAI_API_KEY to talk to a real one."
    )


def last_user_text(messages: Iterable[Message]) -> str:
    """The text of the last message of role `user`; empty when there is none."""
    text = ""
    for message in messages:
        if message.get("role") == "user":
            text = text_of(message)
    return text


def text_of(message: Message) -> str:
    """The text of a message, whose content is a string or a list of parts."""
    content: Any = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))
