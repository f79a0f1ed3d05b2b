"""A backend that times its calls, whichever backend it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from machina.store.base import Backend, Change, Collection, Query, Record, Sort

if TYPE_CHECKING:
    from prometheus_client import Histogram


class MeasuredBackend:
    """The calls of another backend, timed in `seconds` by their names; so are those that fail."""

    def __init__(self, backend: Backend, seconds: Histogram) -> None:
        self._backend = backend
        self._seconds = seconds

    def collection(self, name: str) -> Collection:
        """The other's collection, timed."""
        return _MeasuredCollection(self._backend.collection(name), self._seconds)

    async def now(self) -> datetime:
        """The store's own clock."""
        with self._seconds.labels("now").time():
            return await self._backend.now()


class _MeasuredCollection:
    def __init__(self, collection: Collection, seconds: Histogram) -> None:
        self._collection = collection
        self._seconds = seconds
        self.upserts_once = collection.upserts_once

    async def insert(self, record: Record) -> None:
        with self._seconds.labels("insert").time():
            await self._collection.insert(record)

    async def get(self, id: str) -> Record | None:
        with self._seconds.labels("get").time():
            return await self._collection.get(id)

    async def find(
        self,
        query: Query,
        *,
        sort: Sort = (),
        skip: int = 0,
        limit: int | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        with self._seconds.labels("find").time():
            return await self._collection.find(
                query, sort=sort, skip=skip, limit=limit, fields=fields
            )

    async def nearest(
        self, query: Query, path: str, vector: bytes, *, index: str, limit: int
    ) -> list[tuple[str, float]] | None:
        with self._seconds.labels("nearest").time():
            return await self._collection.nearest(query, path, vector, index=index, limit=limit)

    async def count(self, query: Query) -> int:
        with self._seconds.labels("count").time():
            return await self._collection.count(query)

    async def find_and_update(
        self, query: Query, change: Change, *, sort: Sort = (), upsert: bool = False
    ) -> Record | None:
        with self._seconds.labels("find_and_update").time():
            return await self._collection.find_and_update(query, change, sort=sort, upsert=upsert)

    async def update_many(self, query: Query, change: Change) -> int:
        with self._seconds.labels("update_many").time():
            return await self._collection.update_many(query, change)

    async def delete(self, query: Query) -> int:
        with self._seconds.labels("delete").time():
            return await self._collection.delete(query)
