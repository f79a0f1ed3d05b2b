"""What a run says: the vocabulary of the stream protocol, and how an event becomes bytes, once.

An event on the wire is `{"id": "1-17", "type": …, "content": …, "metadata": {…}}`. The writer
encodes it when it assigns the id; everybody after that relays the bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal, NamedTuple, get_args

import orjson

from machina.ids import EventId

EventType = Literal[
    "start",
    "restart",
    "workflow_start",
    "workflow_complete",
    "workflow_skipped",
    "workflow_error",
    "workflow_objects",
    "status_update",
    "content",
    "error",
    "done",
]
EVENT_TYPES: Final[tuple[str, ...]] = get_args(EventType)
TERMINAL: Final = "done"
_TERMINAL: Final = b'"type":"done"'
_TYPE_ENDS: Final = len('{"id":"999999999-999999999",') + len(_TERMINAL)
"""Where the encoder has written this type at the latest; an author's text comes after it."""


@dataclass(slots=True)
class Event:
    """One thing a run says, not changed once made. `content` is always text; `metadata` is JSON."""

    type: EventType
    content: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class Entry(NamedTuple):
    """An event in the log: its id, and the finished bytes (id inside, no line end)."""

    id: EventId
    data: bytes

    @property
    def type(self) -> str:
        """The event's type, read from the fixed prefix the encoder writes."""
        start = self.data.index(b'"type":"') + 8
        return self.data[start : self.data.index(b'"', start)].decode("ascii")

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow."""
        return self.data.find(_TERMINAL, 8, _TYPE_ENDS) > 0


def is_terminal(type: str) -> bool:
    """Whether an event of this type ends the log."""
    return type == TERMINAL


def encode(id: EventId, event: Event) -> bytes:
    """The bytes of an event: one line of ASCII JSON without the line end.

    ASCII, because existing clients decode chunk by chunk and split at any Unicode line end.
    Values that JSON does not know become text; NaN and the infinities become null.
    """
    head = f'{{"id":"{id}","type":"{event.type}","content":'.encode("ascii")
    return head + encode_json(event.content) + b',"metadata":' + encode_json(event.metadata) + b"}"


def decode(data: bytes) -> dict[str, Any]:
    """The event as a dictionary; for those who must look inside."""
    decoded: dict[str, Any] = orjson.loads(data)
    return decoded


def encode_json(value: Any) -> bytes:
    """Compact ASCII JSON of any value a run can hold."""
    try:
        data = orjson.dumps(value, default=_as_json, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # lone surrogates, integers over 64 bits, deep nesting
        return _encode_slowly(value)
    return data if data.isascii() else _encode_slowly(orjson.loads(data))


def _encode_slowly(value: Any) -> bytes:
    text = json.dumps(_plain(value, 0), ensure_ascii=True, separators=(",", ":"), default=_as_json)
    return text.encode("ascii")


_MAX_DEPTH: Final = 64
_UNBOUNDED: Final = (float("inf"), float("-inf"))


def _plain(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        # A lone surrogate is no character: no client could decode its escape.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return None if value != value or value in _UNBOUNDED else value
    if isinstance(value, dict):
        return {_plain(str(k), depth + 1): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)
