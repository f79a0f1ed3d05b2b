"""Records as JSON text and back: dates and bytes survive as tagged objects, odd keys as they are.

A date is `{"$:date": "2026-01-31T08:00:00.000+00:00"}`, bytes are `{"$:bytes": "<base64>"}`. An
authored object that looks like one of these is wrapped in `{"$:literal": …}`. The tags are only
looked for where the text shows that there are any.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from machina.errors import Invalid
from machina.store.base import Record

_DATE: Final = "$:date"
_BYTES: Final = "$:bytes"
_LITERAL: Final = "$:literal"
_TAGS: Final = frozenset((_DATE, _BYTES, _LITERAL))
_ANY_TAG: Final = b'{"$:'
"""How a tag begins in JSON text. A text inside cannot look like this: its quotes are escaped."""
_INT64: Final = range(-(2**63), 2**63)
MAX_DEPTH: Final = 200


def as_utc(moment: datetime) -> datetime:
    """The moment as the store keeps it: aware, UTC, whole milliseconds; a naive one is UTC."""
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def date_text(moment: datetime) -> str:
    """A date as text of fixed width, so that texts compare as the dates do."""
    return as_utc(moment).isoformat(timespec="milliseconds")


def encode(record: Record) -> str:
    """The JSON text of a record. Lone surrogates become U+FFFD; NaN and the infinities null.

    Raises:
        Invalid: a key is not text or holds NUL; a number exceeds 64 bits; a value of another type;
            too deep. The message says where.
    """
    tags = _TagCounter()
    try:
        data = orjson.dumps(record, default=tags, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except orjson.JSONEncodeError:
        data = orjson.dumps(_plain(record, "", 0))
    else:
        if data.count(_ANY_TAG) != tags.count or rb"\u0000" in data:
            data = orjson.dumps(_plain(record, "", 0))
    return data.decode()


def decode(data: bytes) -> Record:
    """The record of a JSON text that `encode` wrote."""
    record: Record = orjson.loads(data)
    return _restore(record) if _ANY_TAG in data else record


class _TagCounter:
    """Tags what JSON does not know, and counts: a tag too many in the text was authored."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, value: Any) -> Any:
        self.count += 1
        return _tagged(value, "a value")


def _tagged(value: Any, where: str) -> Any:
    if isinstance(value, datetime):
        return {_DATE: date_text(value)}
    if isinstance(value, bytes):
        return {_BYTES: b64encode(value).decode("ascii")}
    raise Invalid(f"The store keeps no value of type {type(value).__name__} ({where}).")


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Invalid(f"The record is nested deeper than {MAX_DEPTH} levels.", field=where)
    if isinstance(value, dict):
        return _plain_object(value, where, depth)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, str):
        return sound_text(value)
    if isinstance(value, int) and value not in _INT64:
        raise Invalid(f"The number at '{where}' exceeds 64 bits.", field=where)
    if value is None or isinstance(value, bool | int | float):
        return value
    return _tagged(value, where)


def _plain_object(value: dict[Any, Any], where: str, depth: int) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        if not isinstance(key, str) or "\0" in key:
            raise Invalid(f"Field names are text without NUL, not {key!r} (in '{where}').")
        plain[sound_text(key)] = _plain(item, f"{where}.{key}" if where else key, depth + 1)
    if len(plain) == 1 and not _TAGS.isdisjoint(plain):
        return {_LITERAL: plain}
    return plain


def sound_text(text: str) -> str:
    """The text with every lone surrogate replaced: such a thing is no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    _DATE: datetime.fromisoformat,
    _BYTES: b64decode,
}


def _restore(node: Any) -> Any:
    if type(node) is list:
        for i, item in enumerate(node):
            if type(item) in (dict, list):
                node[i] = _restore(item)
        return node
    if len(node) == 1:
        ((key, item),) = node.items()
        if key == _LITERAL:
            return _restore_fields(item)
        if key in _READERS:
            return _READERS[key](item)
    return _restore_fields(node)


def _restore_fields(node: Any) -> Any:
    for key, item in node.items():
        kind = type(item)
        if kind is dict or kind is list:
            node[key] = _restore(item)
    return node
