"""Values on their way between worker and script: JSON, with dates that stay what they are.

Numbers that JSON does not know become null, keys become text, tuples and sets become lists; what is
no data at all (bytes, objects, functions) is refused by name and place.
"""

from __future__ import annotations

import datetime
import enum
import json
import os
from collections.abc import KeysView, Mapping, ValuesView

TYPE_CHECKING = False  # typing is slow to load, and every script waits for it
if TYPE_CHECKING:
    from typing import Any

TAG = "$machina"
"""The key that marks a value JSON has no form for. A dictionary with this key is marked itself."""
MAX_DEPTH = 100
_UNBOUNDED = (float("inf"), float("-inf"))


class NotData(Exception):
    """A value that cannot leave its process; the message names its type and its place."""


def dump(value: Any) -> bytes:
    """The value as one line of ASCII JSON. Raises `NotData`."""
    return encode(pack(value))


def encode(packed: Any) -> bytes:
    """What `pack` gave as one line of ASCII JSON."""
    return json.dumps(packed, separators=(",", ":"), allow_nan=False).encode("ascii")


def pack(value: Any, place: str = "", depth: int = 0) -> Any:
    """The value in the types of JSON. Raises `NotData`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, enum.Enum):
        return pack(value.value, place, depth)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return None if value != value or value in _UNBOUNDED else float(value)
    if depth >= MAX_DEPTH:
        raise NotData(f"more than {MAX_DEPTH} levels of nesting{_at(place[:60])}")
    if isinstance(value, Mapping):
        return _pack_mapping(value, place, depth)
    if isinstance(value, (list, tuple, set, frozenset, KeysView, ValuesView)):
        return [pack(item, f"{place}[{n}]", depth + 1) for n, item in enumerate(value)]
    return _pack_other(value, place, depth)


def unpack(value: Any) -> Any:
    """The opposite of `pack`. Raises `ValueError` for what `pack` never gives."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(TAG)
    if kind is None and TAG not in value:
        return {key: unpack(item) for key, item in value.items()}
    content = value.get("value")
    if kind == "dict" and isinstance(content, dict):
        return {key: unpack(item) for key, item in content.items()}
    if kind == "datetime" and isinstance(content, str):
        return datetime.datetime.fromisoformat(content)
    if kind == "date" and isinstance(content, str):
        return datetime.date.fromisoformat(content)
    raise ValueError("a marked value of an unknown kind")


def _pack_mapping(value: Mapping[Any, Any], place: str, depth: int) -> Any:
    packed = {
        _key(key): pack(item, f"{place}.{key}" if place else str(key), depth + 1)
        for key, item in value.items()
    }
    return {TAG: "dict", "value": packed} if TAG in packed else packed


def _key(key: Any) -> str:
    if isinstance(key, str):
        return _clean(key)
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    return _clean(str(key))


def _pack_other(value: Any, place: str, depth: int) -> Any:
    if isinstance(value, datetime.datetime):
        # A missing date of pandas is a date that differs from itself.
        return {TAG: "datetime", "value": value.isoformat()} if value == value else None
    if isinstance(value, datetime.date):
        return {TAG: "date", "value": value.isoformat()}
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    family = type(value).__module__.partition(".")[0]
    if (family, type(value).__name__) == ("decimal", "Decimal"):
        whole = value.is_finite() and value == value.to_integral_value()
        return pack(int(value) if whole and value.adjusted() < 100 else float(value))
    if isinstance(value, (datetime.time, os.PathLike)) or family == "uuid":
        return str(value)
    if family == "numpy":
        plain = value.tolist()
        if type(plain).__module__ != type(value).__module__:
            return pack(plain, place, depth + 1)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise NotData(f"bytes{_at(place)}; decode them, or write a file and return its path")
    raise NotData(f"an object of type {type(value).__name__}{_at(place)}, which is no data")


def _at(place: str) -> str:
    return f" at '{place}'" if place else ""


def _clean(text: str) -> str:
    """Without lone surrogates: they are no characters, and nothing could encode them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return str(text)
