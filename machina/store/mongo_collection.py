"""Collections in MongoDB: one step of the server where it means what we mean, else read and write.

Where the server is not left alone with a query or a change, the record is read, tested and changed
in this process, and written only if nobody wrote it meanwhile: every write counts its version up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from machina.errors import StoreDown
from machina.store.base import Change, Duplicate, Query, QueryRefused, Record, Sort
from machina.store.changes import Apply, compile_change, start_record
from machina.store.indexes import COLLECTIONS
from machina.store.mongo_connection import Connection
from machina.store.mongo_documents import Documents
from machina.store.mongo_errors import ServerRefused
from machina.store.mongo_plans import Filter, may_insert, plan_update
from machina.store.mongo_scans import Scan
from machina.store.mongo_values import Found, converted, is_id, unique_fields
from machina.store.ordering import check_field, value_key
from machina.store.paths import project, split_path

UPSERT_TRIES: Final = 3
"""An upsert that finds a key taken looks again: another one may just have inserted the record."""
MAX_MANY: Final = 10_000
PATIENCE_SECONDS: Final = 20.0
_MOST: Final = 2**31


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

    def __init__(self, name: str, connection: Connection) -> None:
        self._documents = Documents(name, connection)
        self._name = name
        self._turn = asyncio.Lock()
        """Changes made in this process wait for each other rather than undo each other's work."""

    async def insert(self, record: Record) -> None:
        await self._documents.insert(record)

    async def get(self, id: str) -> Record | None:
        if not is_id(id):
            return None
        found = await self._documents.get(id)
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
        parts = [split_path(check_field(field), "fields") for field in fields or ()]
        if limit == 0:
            return []
        if fields is None:
            return [found.record for found in await scan.find(skip, limit)]
        found = await scan.find(skip, limit, tops=[path[0] for path in parts])
        return [project(item.record, parts) for item in found]

    async def count(self, query: Query) -> int:
        return await Scan(self._documents, query).count()

    async def find_and_update(
        self, query: Query, change: Change, *, sort: Sort = (), upsert: bool = False
    ) -> Record | None:
        scan, apply = Scan(self._documents, query, sort), compile_change(change)
        step = await self._one_step(scan, change, apply, upsert)
        if step is not None:
            with suppress(ServerRefused):  # for a reason that the careful way can name
                return await self._take(step, scan, upsert)
        return await self._read_and_write(scan, apply, upsert)

    async def update_many(self, query: Query, change: Change) -> int:
        scan, apply = Scan(self._documents, query), compile_change(change)
        if _cannot_fail(self._name, change):
            step = await self._one_step(scan, change, apply, upsert=False)
            if step is not None:
                return await self._documents.update_all(*step)
        async with _patience(self._name), self._turn:
            return await self._change_all(scan, change, apply)

    async def delete(self, query: Query) -> int:
        scan = Scan(self._documents, query)
        plan = await scan.plan()
        if plan.exact:
            return await self._documents.remove_all(plan.filter)
        removed = 0
        async with _patience(self._name), aclosing(scan.matches(plan)) as matches:
            async for some in matches:
                for found in some:
                    removed += await self._remove(scan, found)
        return removed

    async def _one_step(
        self, scan: Scan, change: Change, apply: Apply, upsert: bool
    ) -> tuple[Filter, Filter] | None:
        """Filter and update with which the server does exactly this, if it can be left to it."""
        if not await self._documents.is_faithful():
            return None
        plan = await scan.plan()
        if not plan.exact or (upsert and not self._may_insert(scan.query, apply)):
            return None

        def work(converter: Converter) -> Filter | None:
            return plan_update(self._name, change, converter, upsert=upsert)

        update = await converted(True, work)
        return None if update is None else (plan.filter, update)

    def _may_insert(self, query: Query, apply: Apply) -> bool:
        try:
            inserted = apply(start_record(query), inserting=True)
        except QueryRefused:
            return False
        return may_insert(self._name, query, inserted)

    async def _take(
        self, step: tuple[Filter, Filter], scan: Scan, upsert: bool
    ) -> Record | None:
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

    async def _read_and_write(self, scan: Scan, apply: Apply, upsert: bool) -> Record | None:
        tries = 0
        async with _patience(self._name), self._turn:
            while True:
                found = await scan.first()
                if found is not None:
                    after = await self._documents.prepare(apply(found.record), found.version + 1)
                    if await self._documents.replace(found, after):
                        return restore(after).record
                elif not upsert:
                    return None
                else:
                    fresh = apply(start_record(scan.query), inserting=True)
                    document = await self._documents.prepare(fresh)
                    try:
                        await self._documents.insert(document)
                    except Duplicate:
                        tries += 1
                        if tries == UPSERT_TRIES:
                            raise
                    else:
                        return restore(document).record
                await _pause()

    async def _change_all(self, scan: Scan, change: Change, apply: Apply) -> int:
        """Makes every record first, so that a refusal changes nothing, then writes them."""
        found: list[Found] = []
        async with aclosing(scan.matches(await scan.plan())) as matches:
            async for some in matches:
                found += some
                if len(found) > MAX_MANY:
                    raise QueryRefused(f"A change of more than {MAX_MANY} records; narrow it down.")
        changed = [apply(item.record) for item in found]
        await self._require_apart(change, changed)
        documents = [
            await self._documents.prepare(record, item.version + 1)
            for item, record in zip(found, changed, strict=True)
        ]
        for item, document in zip(found, documents, strict=True):
            if not await self._documents.replace(item, document):
                await self._read_and_write(scan.of(item.record["_id"]), apply, upsert=False)
        return len(found)
