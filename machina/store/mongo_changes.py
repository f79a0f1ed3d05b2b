"""Changes that the server is not left alone with: read, made in this process, written if unchanged.

Every write counts the version of its record up and names the version it saw, so that of two writers
who saw the same record one begins again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from machina.errors import StoreDown
from machina.store.base import Change, Duplicate, QueryRefused, Record
from machina.store.changes import Apply, start_record
from machina.store.indexes import COLLECTIONS
from machina.store.mongo_documents import Documents
from machina.store.mongo_errors import taken
from machina.store.mongo_plans import Plan
from machina.store.mongo_scans import Scan
from machina.store.mongo_values import Found, restore
from machina.store.ordering import value_key

UPSERT_TRIES: Final = 3
"""An upsert that finds a key taken looks again: another one may just have inserted the record."""
MAX_MANY: Final = 10_000
"""Records that one change may touch: all of them are made before the first is written."""
PATIENCE_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.003


class CarefulChanges:
    """Changes records of one collection.

    Raises:
        StoreDown: the server is away, or others kept writing the same records.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        # Writers of one process wait for each other rather than undo each other's work.
        self._turn = asyncio.Lock()

    async def change_first(self, scan: Scan, apply: Apply, *, upsert: bool) -> Record | None:
        """Changes the first match, or inserts it; returns the record as it is stored."""
        tries = 0
        async with self._patience(), self._turn:
            while True:
                found = await scan.first()
                if found is None and not upsert:
                    return None
                try:
                    stored = await self._write(scan, apply, found)
                except Duplicate:
                    tries += 1
                    if found is not None or tries == UPSERT_TRIES:
                        raise
                    stored = None
                if stored is not None:
                    return stored
                await asyncio.sleep(random.random() * _PAUSE_SECONDS)  # noqa: S311  # only apart

    async def change_all(self, scan: Scan, change: Change, apply: Apply) -> int:
        """Changes every match, or none if one of them refuses; returns how many there were."""
        found: list[Found] = []
        async with self._patience(), self._turn:
            async with aclosing(scan.matches(await scan.plan())) as matches:
                async for some in matches:
                    found += some
                    if len(found) > MAX_MANY:
                        raise QueryRefused(f"One change touches at most {MAX_MANY} records.")
            changed = [apply(item.record) for item in found]
            await self._require_apart(change, changed)
            documents = [
                await self._documents.prepare(record, item.version + 1)
                for item, record in zip(found, changed, strict=True)
            ]
            for item, document in zip(found, documents, strict=True):
                if not await self._documents.replace(item, document):
                    await self._change_again(scan, apply, item)
        return len(found)

    async def remove_all(self, scan: Scan, plan: Plan) -> int:
        """Removes every match; returns how many there were."""
        removed = 0
        async with self._patience(), aclosing(scan.matches(plan)) as matches:
            async for some in matches:
                for found in some:
                    removed += await self._remove(scan, found)
        return removed

    async def _write(self, scan: Scan, apply: Apply, found: Found | None) -> Record | None:
        """Writes the record as changed; None when it has been written meanwhile."""
        if found is None:
            fresh = await self._documents.prepare(apply(start_record(scan.query), inserting=True))
            await self._documents.insert(fresh)
            return restore(fresh).record
        after = await self._documents.prepare(apply(found.record), found.version + 1)
        written = await self._documents.replace(found, after)
        return restore(after).record if written else None

    async def _change_again(self, scan: Scan, apply: Apply, found: Found) -> None:
        """Changes a record that was written since it was found, if it still matches."""
        id, stored = found.record["_id"], None
        while stored is None:
            again = await self._documents.get(id)
            if again is None or not scan.test(again.record):
                return
            stored = await self._write(scan, apply, again)

    async def _remove(self, scan: Scan, found: Found) -> bool:
        while not await self._documents.remove(found):
            again = await self._documents.get(found.record["_id"])
            if again is None or not scan.test(again.record):
                return False
            found = again
        return True

    async def _require_apart(self, change: Change, changed: Sequence[Record]) -> None:
        """Refuses records that would meet in a unique index, before one of them is written."""
        touched = {path.partition(".")[0] for paths in change.values() for path in paths}
        ids = {record["_id"] for record in changed}
        for index in COLLECTIONS[self._documents.name]:
            if not index.unique or touched.isdisjoint(index.keys):
                continue
            keys = [key for record in changed if (key := _key(record, index.keys)) is not None]
            if len({value_key([*key.values()]) for key in keys}) < len(keys):
                raise taken(self._documents.name, index.keys)
            for key in keys:
                others = await Scan(self._documents, key).find(0, 2)
                if any(other.record["_id"] not in ids for other in others):
                    raise taken(self._documents.name, index.keys)

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                yield
        except TimeoutError:
            raise StoreDown(
                f"A change in '{self._documents.name}' came to no end: others kept writing there."
            ) from None


def _key(record: Record, fields: Sequence[str]) -> Mapping[str, Any] | None:
    key = {field: record.get(field) for field in fields}
    return None if None in key.values() else key
