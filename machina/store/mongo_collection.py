"""Collections in MongoDB: one step of the server where it does what we mean, else a careful change.

A change in one step is one command that finds, tests and changes a record, or does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from machina.store.base import Change, Duplicate, Query, QueryRefused, Record, Sort
from machina.store.changes import Apply, compile_change, start_record
from machina.store.indexes import COLLECTIONS
from machina.store.mongo_changes import UPSERT_TRIES, CarefulChanges
from machina.store.mongo_connection import Connection
from machina.store.mongo_documents import Documents
from machina.store.mongo_errors import ServerRefused
from machina.store.mongo_plans import Filter, may_insert, plan_update
from machina.store.mongo_scans import Scan
from machina.store.mongo_values import UNIQUE, Converter, converted, is_id
from machina.store.mongo_vectors import find_nearest
from machina.store.ordering import check_field
from machina.store.paths import project, split_path

_MOST: Final = 2**31
_Step = tuple[Filter, Filter]
"""A filter and an update."""


class MongoBackend:
    """A `Backend`; usable from the event loop it was opened on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._collections = {name: MongoCollection(name, connection) for name in COLLECTIONS}

    def collection(self, name: str) -> MongoCollection:
        """The collection of this name; `KeyError` for one that is not declared."""
        return self._collections[name]

    async def now(self) -> datetime:
        """The server's clock, in UTC, to the millisecond."""
        return await self._connection.now()


class MongoCollection:
    """A `Collection`; see there for what each call does."""

    upserts_once = False

    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._documents = Documents(name, connection)
        self._careful = CarefulChanges(self._documents)

    async def insert(self, record: Record) -> None:
        await self._documents.insert(await self._documents.prepare(record))

    async def get(self, id: str) -> Record | None:
        found = await self._documents.get(id) if is_id(id) else None
        return None if found is None else found.record

    async def find(
        self,
        query: Query,
        *,
        sort: Sort = (),
        skip: int = 0,
        limit: int | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        scan = Scan(self._documents, query, sort)
        for number in (skip, limit):
            if number is not None and not 0 <= number < _MOST:
                raise QueryRefused(f"'skip' and 'limit' are numbers from 0, not {number:.3g}.")
        paths = [split_path(check_field(field), "fields") for field in fields or ()]
        if limit == 0:
            return []
        if fields is None:
            return [found.record for found in await scan.find(skip, limit)]
        found = await scan.find(skip, limit, tops=[path[0] for path in paths])
        return [project(item.record, paths) for item in found]

    async def nearest(
        self, query: Query, path: str, vector: bytes, *, index: str, limit: int
    ) -> list[tuple[str, float]] | None:
        return await find_nearest(self._documents, query, path, vector, index=index, limit=limit)

    async def count(self, query: Query) -> int:
        return await Scan(self._documents, query).count()

    async def find_and_update(
        self, query: Query, change: Change, *, sort: Sort = (), upsert: bool = False
    ) -> Record | None:
        scan, apply = Scan(self._documents, query, sort), compile_change(change)
        step = await self._one_step(scan, change)
        if step is not None and (not upsert or self._would_insert(query, apply)):
            with suppress(ServerRefused):  # the careful way can say what is wrong
                return await self._take(step, scan, upsert)
        return await self._careful.change_first(scan, apply, upsert=upsert)

    async def update_many(self, query: Query, change: Change) -> int:
        scan, apply = Scan(self._documents, query), compile_change(change)
        step = await self._one_step(scan, change) if self._cannot_fail(change) else None
        if step is not None:
            return await self._documents.update_all(*step)
        return await self._careful.change_all(scan, change, apply)

    async def delete(self, query: Query) -> int:
        scan = Scan(self._documents, query)
        plan = await scan.plan()
        if plan.exact:
            return await self._documents.remove_all(plan.filter)
        return await self._careful.remove_all(scan, plan)

    async def _one_step(self, scan: Scan, change: Change) -> _Step | None:
        """What the server can be asked to do exactly this, if anything."""
        plan = await scan.plan()
        if not (plan.exact and await self._documents.is_faithful()):
            return None

        def work(converter: Converter) -> Filter | None:
            return plan_update(self._name, change, converter)

        update = await converted(True, work)
        return None if update is None else (plan.filter, update)

    async def _take(self, step: _Step, scan: Scan, upsert: bool) -> Record | None:
        tries = 0
        while True:
            try:
                found = await self._documents.update_first(*step, scan.keys, upsert=upsert)
            except Duplicate:
                tries += 1
                if not upsert or tries == UPSERT_TRIES:
                    raise
            else:
                return None if found is None else found.record

    def _would_insert(self, query: Query, apply: Apply) -> bool:
        """Whether the server's upsert inserts what ours would."""
        try:
            inserted = apply(start_record(query), inserting=True)
        except QueryRefused:
            return False
        return may_insert(self._name, query, inserted)

    def _cannot_fail(self, change: Change) -> bool:
        """Whether no record can refuse a change: the server does not take a half-done one back."""
        kept = {"_id", *UNIQUE[self._name]}
        return all(
            name in ("$set", "$unset")
            and kept.isdisjoint(paths)
            and not any("." in p for p in paths)
            for name, paths in change.items()
        )
