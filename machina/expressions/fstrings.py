"""Compiles text: f-strings, and `$.(key)` inside string literals."""

from __future__ import annotations

import ast

from machina.expressions.closure import BUDGET, SCOPE, Builder, Closure, Frame
from machina.expressions.source import Source, text_parts
from machina.expressions.texts import formatted, representation_of, text_of

_REPR, _ASCII = ord("r"), ord("a")


def text_with_state(text: str, source: Source | None) -> Closure:
    """A text whose `$.(key)` are filled in from the state; null gives nothing.

    The text is split here, when it is compiled: what is filled in is never read again.
    """
    if source and source.subject in text:
        text = text.replace(f"{source.subject} ", "$")  # as in the text of f"{$=}"
    parts: list[Closure] = []
    for plain, key in text_parts(text):
        if plain:
            parts.append(_fixed(plain))
        if key is not None:
            parts.append(_state_text(key))
    if len(parts) > 1:
        return _joined(parts)
    return parts[0] if parts else _fixed("")


def joined_text(node: ast.JoinedStr, build: Builder) -> Closure:
    """An f-string."""
    return _joined([build(part) for part in node.values])


def field(node: ast.FormattedValue, build: Builder) -> Closure:
    """A field of an f-string: `{value}`, `{value!r}`, `{value:spec}`."""
    value = build(node.value)
    spec = build(node.format_spec) if node.format_spec else _fixed("")
    if node.conversion == _REPR:
        return lambda frame: formatted(
            frame[BUDGET], representation_of(frame[BUDGET], value(frame)), spec(frame)
        )
    if node.conversion == _ASCII:
        return lambda frame: formatted(
            frame[BUDGET], _ascii(representation_of(frame[BUDGET], value(frame))), spec(frame)
        )
    if node.conversion > 0:
        return lambda frame: formatted(
            frame[BUDGET], text_of(frame[BUDGET], value(frame)), spec(frame)
        )
    if node.format_spec is None:
        return lambda frame: text_of(frame[BUDGET], value(frame))
    return lambda frame: formatted(frame[BUDGET], value(frame), spec(frame))


def _fixed(text: str) -> Closure:
    return lambda frame: text


def _state_text(key: str) -> Closure:
    def inserted(frame: Frame) -> str:
        value = frame[SCOPE].state(key)
        return "" if value is None else text_of(frame[BUDGET], value)

    return inserted


def _joined(parts: list[Closure]) -> Closure:
    def text(frame: Frame) -> str:
        texts = [part(frame) for part in parts]
        frame[BUDGET].take(sum(map(len, texts)))
        return "".join(texts)

    return text


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")
