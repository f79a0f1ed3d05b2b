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

T = TypeVar("T")

MAX_DEPTH: Final = 200
"""Deeper values become null; no author nests like that and the store would refuse it."""

_TAG: Final = "machina:"
_LARGEST: Final = 2**63
_LARGE: Final = 4_000


async def cross_border(work: Callable[[dict[str, Any]], T], state: dict[str, Any]) -> T:
    """Does the work on a state: in place when it is small, else where it does not block the loop.

    Nobody may change the state meanwhile.
    """
    return await asyncio.to_thread(work, state) if _is_large(state) else work(state)


def as_json(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state as JSON knows it: dates are ISO text, sets are lists."""
    plain: dict[str, Any] = orjson.loads(encode_json(dict(state)))
    return plain


def compact_json(value: Any) -> str:
    """Compact JSON for a model to read: characters as they are, not escaped."""
    data = orjson.loads(encode_json(value))
    return orjson.dumps(data).decode()


def freeze(value: Any, depth: int = 0) -> Any:
    """The value in JSON types only; `thaw` gives dates, durations and large integers back."""
    kind = type(value)
    if kind is str:
        return _clean(value)
    if kind is bool or value is None:
        return value
    if depth > MAX_DEPTH:
        return None
    if kind is dict:
        frozen = {_clean(str(k)): freeze(v, depth + 1) for k, v in value.items()}
        return {f"{_TAG}dict": frozen} if _is_tagged(frozen) else frozen
    if kind is list or kind is tuple:
        return [freeze(item, depth + 1) for item in value]
    return _freeze_rare(value, depth)


def thaw(value: Any) -> Any:
    """The inverse of `freeze`, up to what JSON makes of tuples and sets: lists."""
    if isinstance(value, list):
        return [thaw(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _is_tagged(value):
        ((tag, inner),) = value.items()
        if tag in _READ:
            return _READ[tag](inner)
        value = inner
    return {k: thaw(v) for k, v in value.items()}


def _freeze_rare(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        return freeze(dict(value), depth)
    if isinstance(value, set | frozenset):
        return [freeze(item, depth + 1) for item in sorted(value, key=str)]
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


def _is_large(state: Any) -> bool:
    """Whether looking at everything in the state takes milliseconds; itself it takes far less."""
    weight = 0
    waiting = [state]
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
