"""The body of a chat completion, streamed or whole: bytes in, texts out. Pure: no I/O, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import orjson

from machina.connectors.llm.base import ChatDelta, Usage
from machina.connectors.llm.lines import LineSplitter, LineTooLong
from machina.connectors.llm.options import ProviderLimits
from machina.connectors.llm.refusals import Callee, refused_inside
from machina.connectors.llm.text_repair import TextRepair
from machina.errors import ModelFailed

_DONE: Final = b"[DONE]"
_BLANK: Final = b" \t\r\n\xef\xbb\xbf"
_FIELDS: Final = (b":", b"data", b"event", b"id", b"retry")
# No vocabulary spends more bytes on an average token; a provider that does ignores `max_tokens`.
_BYTES_PER_TOKEN: Final = 32
_SLACK_BYTES: Final = 4096


class _Unreadable(Exception):
    """Not JSON, even if one closes an eye."""


class AnswerReader:
    """Reads one answer. Afterwards `last_delta` says how it ended."""

    def __init__(self, limits: ProviderLimits, callee: Callee, max_tokens: int | None) -> None:
        self._limits = limits
        self._callee = callee
        self._lines = LineSplitter(limits.max_line_bytes)
        self._repair = TextRepair()
        self._is_whole: bool | None = None
        self._whole = bytearray()
        self._has_data = self._has_strays = False
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._max_bytes = limits.max_answer_bytes
        self._bytes_limit = f"{self._max_bytes} bytes"
        self._bytes_said = 0
        if max_tokens is not None and max_tokens * _BYTES_PER_TOKEN < self._max_bytes:
            self._max_bytes = max(max_tokens, 0) * _BYTES_PER_TOKEN + _SLACK_BYTES
            self._bytes_limit = f"max_tokens of {max_tokens}"
        self.is_done = False
        """Whether `[DONE]` was read: nothing of interest follows."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer may be taken for whole although the connection broke."""
        return self.is_done or self._finish_reason is not None

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The texts in the lines that this chunk completes; none is empty.

        Raises:
            ModelFailed: `provider_invalid`, or what an error object in the stream says.
        """
        if self._is_whole is None:
            # A server that ignores `stream` answers with one object, whatever type it states.
            start = chunk.lstrip(_BLANK)
            if start:
                self._is_whole = start[:1] in (b"{", b"[")
                chunk = start if self._is_whole else chunk
        if self._is_whole:
            self._feed_whole(chunk)
        elif not self.is_done:
            yield from self._feed_lines(chunk)

    def _feed_whole(self, chunk: bytes) -> None:
        self._whole += chunk
        if len(self._whole) > self._limits.max_answer_bytes + self._limits.max_line_bytes:
            raise self._invalid("its answer is longer than any may be")

    def _feed_lines(self, chunk: bytes) -> Iterator[str]:
        try:
            for line in self._lines.feed(chunk):
                text = self._read_line(line)
                if text:
                    yield text
                if self.is_done:
                    return
        except LineTooLong:
            raise self._too_long() from None
        except _Unreadable:
            raise self._invalid("it sent JSON that cannot be read") from None

    def end(self) -> Iterator[str]:
        """The texts that the end of the body completes.

        Raises:
            ModelFailed: `provider_cut` when the answer is not finished, else as `feed`.
        """
        text = self._read_whole() if self._is_whole else self._read_rest()
        if text:
            yield text
        if not self.is_complete:
            raise self._cut()
        text = self._repair.rest()
        if text:
            yield text

    @property
    def has_begun(self) -> bool:
        """Whether the first byte has come."""
        return self._is_whole is not None

    def last_delta(self) -> ChatDelta:
        """How a complete answer ended, and what it cost if the provider said so."""
        return ChatDelta(finish_reason=self._finish_reason or "stop", usage=self._usage)

    def _read_line(self, line: bytes) -> str:
        if not line.startswith(b"data:"):
            # Blank, a comment, or a field that says nothing to us.
            self._has_strays = self._has_strays or (bool(line) and not line.startswith(_FIELDS))
            return ""
        data = line[6:] if line[5:6] == b" " else line[5:]
        if not data:
            return ""
        self._has_data = True
        if data.rstrip() == _DONE:
            self.is_done = True
            return ""
        return self._read_object(_parsed(data))

    def _read_rest(self) -> str:
        if self.is_done:
            return ""
        try:
            rest = self._lines.rest()
        except LineTooLong:
            raise self._too_long() from None
        try:
            text = self._read_line(rest)
        except _Unreadable:
            return ""  # half a line: the connection ended, not the answer
        if self._has_strays and not self._has_data:
            where = self._callee.url_variable
            raise self._invalid(f"its answer is no event stream: check {where}")
        return text

    def _read_whole(self) -> str:
        try:
            payload = _parsed(bytes(self._whole))
        except _Unreadable:
            if self._whole.rstrip().endswith((b"}", b"]")):
                raise self._invalid("it sent JSON that cannot be read") from None
            return ""
        text = self._read_object(payload)
        self._finish_reason = self._finish_reason or "stop"
        return text

    def _read_object(self, payload: Any) -> str:
        if isinstance(payload, list) and self._is_whole and payload:
            payload = payload[0]  # Gemini wraps its errors
        if not isinstance(payload, dict):
            raise self._invalid("it sent JSON that is no object")
        if payload.get("error"):
            raise refused_inside(payload, self._callee)
        usage = payload.get("usage")
        if isinstance(usage, dict):
            self._usage = _usage_of(usage)
        choices = payload.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            # We ask for one choice; a server that sends more is not listened to.
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                return self._read_choice(choice)
        return ""

    def _read_choice(self, choice: dict[str, Any]) -> str:
        said = choice.get("delta") or choice.get("message")
        text = ""
        if isinstance(said, dict):
            text = _text_of(said.get("content")) or _text_of(said.get("refusal"))
        if text:
            text = self._repair.clean(text)
            self._count(text)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finish_reason = reason
        return text

    def _count(self, text: str) -> None:
        self._bytes_said += len(text) if text.isascii() else len(text.encode())
        if self._bytes_said > self._max_bytes:
            raise self._invalid(f"its answer is longer than {self._bytes_limit}")

    def _too_long(self) -> ModelFailed:
        return self._invalid(f"it sent a line of more than {self._limits.max_line_bytes} bytes")

    def _invalid(self, what: str) -> ModelFailed:
        return ModelFailed(
            f"{self._callee.host} answered nonsense: {what}.",
            code="provider_invalid",
            retryable=False,
        )

    def _cut(self) -> ModelFailed:
        return ModelFailed(
            f"{self._callee.host} ended the answer without a reason for finishing or [DONE].",
            code="provider_cut",
            retryable=True,
        )


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:  # broken UTF-8, raw control characters, lone surrogates: odd, but readable
        return json.loads(data.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        raise _Unreadable from None


def _text_of(content: Any) -> str:
    """The text of a delta, whose content is a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _usage_of(usage: dict[str, Any]) -> Usage:
    return Usage(_tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens")))


def _tokens(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if is_count else 0
