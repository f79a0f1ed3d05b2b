"""Many upserts of documents of one name, decided on together: one look at what there is.

Deciding one by one would read all documents of the name for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from typing import Any, Final

from machina.ids import ObjectIdMint
from machina.store.base import Collection, Duplicate, Query, Record
from machina.store.ordering import value_key
from machina.store.paths import MISSING, leaves, set_at, split_path
from machina.store.vector_search import SPACE, VECTOR, embedding_fields
from machina.store.vectors import Embedding

AT_ONCE: Final = 64
"""Writes on their way at the same time."""
_PAGE: Final = 1_000
_FIXED: Final = ("_id", "project", "created")
_MAX_KEYS: Final = 256
"""Ways in which one record may match, when its fields are lists."""


@dataclass(frozen=True, slots=True)
class UpsertItem:
    """One upsert: what is written, and which document it is meant for."""

    value: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    match: Mapping[str, Any] | None = None
    """Dotted paths and the values that must be there; None: always a new document."""
    embedding: Embedding | None = None
    embeds: bool = False
    id: str | None = None
    """Reserved for it, should it be a new document."""


@dataclass(slots=True)
class Batch:
    """What is to be written: whole records, and changes of those that are there."""

    scope: Mapping[str, Any]
    new: dict[str, Record] = field(default_factory=dict)
    changes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    order: dict[str, None] = field(default_factory=dict)
    """Ids in the order of their first item."""


async def plan_batch(
    collection: Collection,
    scope: Mapping[str, Any],
    items: Sequence[UpsertItem],
    *,
    now: datetime,
    mint: ObjectIdMint,
) -> Batch:
    """Decides for each item which document it is for, those of earlier items included.

    `scope` are the fields that all of them have, `project` and `name`.
    """
    shapes = {tuple(item.match) for item in items if item.match is not None}
    index = _Index(shapes)
    if shapes:
        async for page in _pages(collection, scope, index.tops):
            await asyncio.to_thread(index.add_all, page)
    planner = _Planner(Batch(scope), index, now, mint)
    await asyncio.to_thread(planner.plan, items)
    return planner.batch


async def write_batch(collection: Collection, batch: Batch) -> list[Record]:
    """Writes a batch; returns the documents as stored, in the order of their items.

    May be repeated after an answer that was lost. An id that is taken was written before, by this
    batch or by an earlier attempt of the run that it is reserved for; it is written over.

    Raises:
        Duplicate: an id is taken in another project.
    """
    written: dict[str, Record] = {}

    async def change(id: str, made: Mapping[str, Any]) -> None:
        record = await collection.find_and_update(
            {"_id": id, "project": batch.scope["project"]}, made
        )
        if record is not None:  # else somebody removed it meanwhile
            written[id] = record

    async def add(id: str) -> None:
        record = batch.new[id]
        try:
            await collection.insert(record)
            written[id] = record
        except Duplicate:
            await change(id, {"$set": {k: v for k, v in record.items() if k not in _FIXED}})
            if id not in written:
                raise

    async def alter(id: str) -> None:
        await change(id, batch.changes[id])

    await _all_of(batch.new, add)
    await _all_of(batch.changes, alter)
    return [written[id] for id in batch.order if id in written]


async def _all_of(ids: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Does the work on all, some at a time; the first failure ends it."""
    waiting = iter([*ids])

    async def worker() -> None:
        for id in waiting:
            await work(id)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _pages(
    collection: Collection, scope: Query, fields: Sequence[str]
) -> AsyncIterator[list[Record]]:
    """All records of the scope, the newest first, with some of their fields."""
    asked: Query = dict(scope)
    while True:
        page = await collection.find(asked, sort=[("_id", -1)], limit=_PAGE, fields=fields)
        yield page
        if len(page) < _PAGE:
            return
        asked = {**scope, "_id": {"$lt": page[-1]["_id"]}}


class _Index:
    """Which document, the newest first, has certain values at certain paths."""

    def __init__(self, shapes: Iterable[tuple[str, ...]]) -> None:
        self._shapes = {
            shape: [split_path(path, path) for path in sorted(shape)] for shape in shapes
        }
        self._found: dict[tuple[tuple[str, ...], Any], str] = {}

    @property
    def tops(self) -> list[str]:
        """The fields that are looked at, as paths none of which lies inside another."""
        paths = sorted({".".join(path) for paths in self._shapes.values() for path in paths})
        return [p for p in paths if not any(p.startswith(f"{other}.") for other in paths)]

    def add_all(self, records: Iterable[Record]) -> None:
        """Adds records, the newest first; what is there already stays."""
        for record in records:
            for key in self._keys(record):
                self._found.setdefault(key, record["_id"])

    def put_first(self, record: Record) -> None:
        """Adds a record that is newer than all others."""
        for key in self._keys(record):
            self._found[key] = record["_id"]

    def find(self, match: Mapping[str, Any]) -> str | None:
        """The id of the newest document that matches."""
        values = tuple(value_key(match[path]) for path in sorted(match))
        return self._found.get((tuple(match), values))

    def _keys(self, record: Record) -> Iterator[tuple[tuple[str, ...], Any]]:
        for shape, paths in self._shapes.items():
            ways = [_values_at(record, path) for path in paths]
            for number, values in enumerate(product(*ways)):
                if number == _MAX_KEYS:
                    break
                yield shape, values


def _values_at(record: Record, path: Sequence[str]) -> list[Any]:
    """What is equal to the record's values at a path: a list to itself and to its elements."""
    keys: dict[Any, None] = {}
    for value in leaves(record, path):
        keys[value_key(None if value is MISSING else value)] = None
        if isinstance(value, list):
            keys |= dict.fromkeys(map(value_key, value))
    return [*keys] or [value_key(None)]


class _Planner:
    """Turns items into a batch."""

    def __init__(self, batch: Batch, index: _Index, now: datetime, mint: ObjectIdMint) -> None:
        self.batch = batch
        self._index = index
        self._now = now
        self._mint = mint

    def plan(self, items: Iterable[UpsertItem]) -> None:
        """Decides about all items."""
        for item in items:
            id = None if item.match is None else self._index.find(item.match)
            if id is None:
                id = self._add(item)
            elif id in self.batch.new:
                self._write_over(self.batch.new[id], item)
            else:
                self.batch.changes[id] = self._change(item, self.batch.changes.get(id))
            self.batch.order.setdefault(id)

    def _add(self, item: UpsertItem) -> str:
        id = item.id or self._mint(self._now.timestamp())
        record: Record = {}
        for path, value in (item.match or {}).items():
            if not path.startswith("value."):
                set_at(record, path.split("."), value)
        record |= {**self.batch.scope, "_id": id, "created": self._now}
        record["metadata"] = dict(record.get("metadata") or {})
        self._write_over(record, item)
        self.batch.new[id] = record
        self._index.put_first(record)
        return id

    def _write_over(self, record: Record, item: UpsertItem) -> None:
        record |= {**item.fields, "value": item.value, "updated": self._now}
        record["metadata"] = record["metadata"] | dict(item.metadata)
        if item.embeds:
            for name in (VECTOR, SPACE):
                record.pop(name, None)
        record |= embedding_fields(item.embedding)

    def _change(
        self, item: UpsertItem, before: dict[str, dict[str, Any]] | None
    ) -> dict[str, dict[str, Any]]:
        settings = dict(before["$set"]) if before else {}
        removals = dict(before.get("$unset", {})) if before else {}
        settings |= {**item.fields, "value": item.value, "updated": self._now}
        settings |= {f"metadata.{key}": value for key, value in item.metadata.items()}
        if item.embeds:
            removals |= dict.fromkeys((VECTOR, SPACE), "")
        settings |= embedding_fields(item.embedding)
        for name in embedding_fields(item.embedding):
            removals.pop(name, None)
        for name in removals:
            settings.pop(name, None)
        return {"$set": settings, **({"$unset": removals} if removals else {})}
