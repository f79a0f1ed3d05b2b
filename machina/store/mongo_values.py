"""Records as MongoDB documents and back: every value in its BSON type, odd keys escaped reversibly.

A key that MongoDB would refuse or misread is escaped as in a URL: a `$` at its beginning is `%24`,
a dot `%2E`, a `%` itself `%25`. So no key of a record can be one of ours: `%v` counts the changes
of a record, `%bytes` marks bytes for a server that cannot keep them.
"""

from __future__ import annotations

import asyncio
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

import bson
from bson.binary import Binary
from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from machina.errors import Invalid
from machina.store.base import Record
from machina.store.indexes import COLLECTIONS, indexed_fields, require_single
from machina.store.values import MAX_DEPTH, as_utc, sound_text
from machina.store.vectors import Vector

VERSION: Final = "%v"
_BYTES: Final = "%bytes"
_ESCAPE: Final = b"%"
_SINGLE: Final = frozenset((int, float, datetime, bytes))
_INT64: Final = range(-(2**63), 2**63)
_VECTOR_SUBTYPE: Final = 9
INDEXED: Final = {name: indexed_fields(name) for name in COLLECTIONS}
"""The fields of each collection that some index holds."""
UNIQUE: Final = {
    name: frozenset(key for index in indexes if index.unique for key in index.keys)
    for name, indexes in COLLECTIONS.items()
}
"""Those that a unique index holds."""
INLINE_NODES: Final = 5_000
"""What is converted on the event loop; a larger record is converted on a thread."""
INLINE_BYTES: Final = 65_536

Result = TypeVar("Result")
Document = dict[str, Any]


class _PlainInt(TypeDecoder):
    """Gives 64-bit numbers as `int`, not as the driver's own subclass."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


RAW: Final[CodecOptions[RawBSONDocument]] = CodecOptions(document_class=RawBSONDocument)
"""Documents arrive undecoded, so that this file decodes each once, and knows its size before."""
_DECODED: Final[CodecOptions[Document]] = CodecOptions(
    tz_aware=True, tzinfo=UTC, type_registry=TypeRegistry([_PlainInt()])
)


class Found(NamedTuple):
    """A record and the version of its document."""

    record: Record
    version: int


class TooManyNodes(Exception):
    """A record is too large to be converted on the event loop."""


class Converter:
    """Converts values into what a server keeps.

    Args:
        has_bytes: whether the server keeps bytes as such.
        most: nodes after which `TooManyNodes` is raised; None converts whatever comes.
    """

    def __init__(self, *, has_bytes: bool, most: int | None = None) -> None:
        self._has_bytes = has_bytes
        self._left = math.inf if most is None else most

    def document(self, record: Record, version: int) -> Document:
        """The document of a record, with `_id` as it is.

        Raises:
            Invalid: what the embedded store refuses too: a key that is no text or holds NUL, a
                number beyond 64 bits, a value of another type, nesting too deep.
        """
        document: Document = self.value(record)
        document[VERSION] = version
        return document

    def value(self, value: Any, where: str = "", depth: int = 0) -> Any:
        """A value as it is stored: dates to the millisecond, NaN as null, tuples as lists."""
        self._left -= 1
        if self._left < 0:
            raise TooManyNodes
        kind = type(value)
        if kind is str:
            return value if value.isascii() else sound_text(value)
        if value is None or kind is bool:
            return value
        if kind in _SINGLE or not isinstance(value, Mapping | list | tuple):
            return self._single(value, where)
        return self._container(value, where, depth)

    def _container(self, value: Any, where: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Invalid(f"The record is nested deeper than {MAX_DEPTH} levels.", field=where)
        if not isinstance(value, Mapping):
            return [self.value(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
        stored = {}
        for key, item in value.items():
            if not isinstance(key, str) or "\0" in key:
                raise Invalid(f"Field names are text without NUL, not {key!r} (in '{where}').")
            stored[escape(key)] = self.value(item, f"{where}.{key}" if where else key, depth + 1)
        return stored

    def _single(self, value: Any, where: str) -> Any:
        if isinstance(value, int):
            if value not in _INT64:
                raise Invalid(f"The number at '{where}' exceeds 64 bits.", field=where)
            return int(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, datetime):
            return as_utc(value)
        if isinstance(value, bytes):
            if not self._has_bytes:
                return {_BYTES: b64encode(value).decode("ascii")}
            return Binary(value, _VECTOR_SUBTYPE) if isinstance(value, Vector) else value
        if isinstance(value, str):
            return sound_text(str(value))
        raise Invalid(f"The store keeps no value of type {type(value).__name__} ({where}).")


def escape(key: str) -> str:
    """The stored form of a key; a part of a path cannot hold a dot, and is escaped alike."""
    if not key.isascii():
        key = sound_text(key)
    if "%" in key or "." in key:
        key = key.replace("%", "%25").replace(".", "%2E")
    return "%24" + key[1:] if key.startswith("$") else key


def unescape(key: str) -> str:
    """The key of a stored form."""
    return key.replace("%24", "$").replace("%2E", ".").replace("%25", "%") if "%" in key else key


def stored_path(path: str) -> str:
    """Where a path of a record lies in its document."""
    return ".".join(map(escape, path.split(".")))


def restore(document: Document) -> Found:
    """The record of a document that `Converter.document` made, or that was read."""
    version = document.pop(VERSION, 0)
    return Found(_restore(document), version)


def _restore(node: Any) -> Any:
    if type(node) is dict:
        if len(node) == 1 and _BYTES in node:
            return b64decode(node[_BYTES])
        return {unescape(key): _restore(item) for key, item in node.items()}
    if type(node) is list:
        return [_restore(item) for item in node]
    return node


def decode(raw: RawBSONDocument) -> Found:
    """The record of one document from the server."""
    data = bytes(raw.raw)
    document = bson.decode(data, _DECODED)
    if data.count(_ESCAPE) == 1:  # only the version's own
        return Found(document, document.pop(VERSION, 0))
    return restore(document)


async def decode_all(rows: Sequence[RawBSONDocument]) -> list[Found]:
    """The records of a page; a large page is decoded on a thread."""
    if sum(len(row.raw) for row in rows) > INLINE_BYTES:
        return await asyncio.to_thread(lambda: [decode(row) for row in rows])
    return [decode(row) for row in rows]


async def converted(has_bytes: bool, work: Callable[[Converter], Result]) -> Result:
    """What `work` makes with a converter: at once, or on a thread if there is much to convert."""
    try:
        return work(Converter(has_bytes=has_bytes, most=INLINE_NODES))
    except TooManyNodes:
        return await asyncio.to_thread(work, Converter(has_bytes=has_bytes))


def is_id(id: Any) -> bool:
    """Whether a record can have this `_id`: text that is not empty, without NUL and surrogates."""
    return isinstance(id, str) and bool(id) and "\0" not in id and sound_text(id) == id


def check_record(collection: str, record: Record) -> None:
    """Refuses a record that this collection cannot hold.

    Raises:
        Invalid: without an `_id` of text; a list, object or blob in an indexed field; something
            other than text or nothing in a field of a unique index, whose MongoDB form counts texts
            only.
    """
    if not is_id(record.get("_id")):
        raise Invalid(f"A record's '_id' is text, not {record.get('_id')!r:.80}.", field="_id")
    for field in INDEXED[collection]:
        value = record.get(field)
        if value is not None and type(value) is not str:
            require_indexable(collection, field, value)


def require_indexable(collection: str, field: str, value: Any) -> None:
    """Refuses a value that an indexed field cannot hold; see `check_record`."""
    require_single(collection, field, value)
    if field in UNIQUE[collection] and not (value is None or isinstance(value, str)):
        raise Invalid(
            f"'{field}' of a record in '{collection}' is text, not {value!r:.80}.", field=field
        )
