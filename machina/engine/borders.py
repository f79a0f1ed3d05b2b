"""Where state leaves the engine: as JSON for the result, as a reversible form for a checkpoint.

A state may hold what JSON does not know, above all dates. The result shows them as text. A new
attempt must go on with the very values the old one had, so a checkpoint tags them; and the old
attempt goes on with `thaw(freeze(state))` too, so that the two cannot differ.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, Final, TypeVar

import orjson

from machina.events import encode_json
from machina.observability.redaction import MASK

T = TypeVar("T")
V = TypeVar("V")

Hide = Callable[[str], list[str | list[str]] | None]
"""Cuts a text at the secrets in it: texts, and `[name]` for each secret; None without any."""
Reveal = Callable[[str], Any]
"""The value of a secret by its name."""

MAX_DEPTH: Final = 200
"""Deeper values become null; no author nests like that and the store would refuse it."""

MAX_LEVELS: Final = 50
"""What a workflow or a step gives may not be nested deeper: JSON and stores have their limits."""

_TAG: Final = "machina:"
_HIDDEN: Final = "machina:hidden"
_LARGEST: Final = 2**63
_LARGE: Final = 4_000
_PER_VALUE: Final = 64


async def cross_border(work: Callable[[V], T], value: V) -> T:
    """Does the work on a value: in place when it is small, else where it does not block the loop.

    Nobody may change the value meanwhile.
    """
    return await asyncio.to_thread(work, value) if is_large(value) else work(value)


def as_json(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state as JSON knows it: dates are ISO text, sets are lists."""
    plain: dict[str, Any] = orjson.loads(encode_json(dict(state)))
    return plain


def compact_json(value: Any) -> str:
    """Compact JSON for a model to read: characters as they are, not escaped."""
    data = orjson.loads(encode_json(value))
    return orjson.dumps(data).decode()


def freeze(value: Any, hide: Hide | None = None, depth: int = 0) -> Any:
    """The value in JSON types only; `thaw` gives dates, durations and large integers back.

    With `hide`, secrets leave only their names behind, which `thaw` resolves again.
    """
    kind = type(value)
    if kind is str:
        return _freeze_text(value, hide)
    if kind is bool or value is None:
        return value
    if depth > MAX_DEPTH:
        return None
    if kind is dict:
        frozen = {_freeze_key(k, hide): freeze(v, hide, depth + 1) for k, v in value.items()}
        return {f"{_TAG}dict": frozen} if _is_tagged(frozen) else frozen
    if kind is list or kind is tuple:
        return [freeze(item, hide, depth + 1) for item in value]
    return _freeze_rare(value, hide, depth)


def thaw(value: Any, reveal: Reveal | None = None) -> Any:
    """The inverse of `freeze`, up to what JSON makes of tuples and sets: lists."""
    if isinstance(value, list):
        return [thaw(item, reveal) for item in value]
    if not isinstance(value, dict):
        return value
    if _is_tagged(value):
        ((tag, inner),) = value.items()
        if tag == _HIDDEN:
            return _reveal(inner, reveal)
        if tag in _READ:
            return _READ[tag](inner)
        value = inner
    return {k: thaw(v, reveal) for k, v in value.items()}


def _freeze_text(value: str, hide: Hide | None) -> Any:
    parts = hide(value) if hide is not None else None
    return _clean(value) if parts is None else {_HIDDEN: parts}


def _freeze_key(key: Any, hide: Hide | None) -> str:
    text = _clean(str(key))
    parts = hide(text) if hide is not None else None
    return text if parts is None else "".join(p if isinstance(p, str) else MASK for p in parts)


def _reveal(parts: list[str | list[str]], reveal: Reveal | None) -> Any:
    """The text with its secrets in it again; one that is gone by now is null, or masked inside."""
    found = [
        part if isinstance(part, str) else reveal(part[0]) if reveal is not None else None
        for part in parts
    ]
    if len(found) == 1:
        return found[0]
    return "".join(MASK if part is None else str(part) for part in found)


def _freeze_rare(value: Any, hide: Hide | None, depth: int) -> Any:
    if isinstance(value, Mapping):
        return freeze(dict(value), hide, depth)
    if isinstance(value, set | frozenset):
        return [freeze(item, hide, depth + 1) for item in sorted(value, key=str)]
    return _freeze_scalar(value)


def _freeze_scalar(value: Any) -> Any:
    if isinstance(value, int):
        return int(value) if abs(value) < _LARGEST else {f"{_TAG}int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, datetime):
        return {f"{_TAG}datetime": value.isoformat()}
    if isinstance(value, date):
        return {f"{_TAG}date": value.isoformat()}
    if isinstance(value, timedelta):
        return {f"{_TAG}timedelta": [value.days, value.seconds, value.microseconds]}
    return _clean(str(value))


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    f"{_TAG}int": lambda text: int(text, 16),
    f"{_TAG}datetime": datetime.fromisoformat,
    f"{_TAG}date": date.fromisoformat,
    f"{_TAG}timedelta": lambda parts: timedelta(*parts),
}


def is_deep(value: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether lists and dictionaries stand more than `levels` deep inside each other."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset):
        return False
    return levels == 0 or any(is_deep(item, levels - 1) for item in value)


def weigh(value: Any, most: int) -> int:
    """About the bytes a value takes, looked at until it is more than `most`."""
    weight = 0
    waiting = [value]
    while waiting and weight <= most:
        found = waiting.pop()
        weight += _PER_VALUE
        if isinstance(found, str | bytes):
            weight += len(found)
        elif isinstance(found, Mapping):
            waiting.extend(found.values())
            weight += _PER_VALUE * len(found)
        elif isinstance(found, list | tuple | set | frozenset):
            waiting.extend(found)
    return weight


def is_large(whole: Any) -> bool:
    """Whether looking at everything in a value takes milliseconds; itself it takes far less."""
    weight = 0
    waiting = [whole]
    while waiting and weight + len(waiting) < _LARGE:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        weight += 1 + (len(value) >> 6 if isinstance(value, str) else 0)
    return bool(waiting) or weight >= _LARGE


def _is_tagged(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith(_TAG)


def _clean(text: str) -> str:
    """Lone surrogates are no characters: no store keeps them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
