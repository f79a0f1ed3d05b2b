"""The documents of one collection, as the driver handles them: each method is one question."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from bson.raw_bson import RawBSONDocument
from pymongo import ReturnDocument

from machina.errors import Invalid
from machina.store.base import Record
from machina.store.mongo_connection import QUERY_SECONDS, Connection
from machina.store.mongo_errors import ServerRefused
from machina.store.mongo_plans import Filter
from machina.store.mongo_values import (
    RAW,
    VERSION,
    Converter,
    Document,
    Found,
    check_record,
    converted,
    decode_all,
)

BATCH: Final = 500
_QUERY_MS: Final = round(QUERY_SECONDS * 1000)

Keys = Sequence[tuple[str, int]]
Result = TypeVar("Result")


class Documents:
    """One collection. What is raised is what `Connection.call` raises."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self._connection = connection
        self._collection = connection.database.get_collection(name, codec_options=RAW)

    async def is_faithful(self) -> bool:
        """Whether the server can be left alone with queries and changes."""
        return await self._connection.is_faithful()

    async def prepare(self, record: Record, version: int = 1) -> Document:
        """The document of a record.

        Raises:
            Invalid: the collection cannot hold it.
        """
        check_record(self.name, record)
        has_bytes = await self.is_faithful()

        def work(converter: Converter) -> Document:
            return converter.document(record, version)

        return await converted(has_bytes, work)

    async def insert(self, document: Document) -> None:
        """Adds a document."""
        await self._write(lambda: self._collection.insert_one(document))

    async def replace(self, found: Found, document: Document) -> bool:
        """Puts a document in place of one that was found; False when that has changed since."""
        same = _same(found)
        result = await self._write(lambda: self._collection.replace_one(same, document))
        return bool(result.matched_count)

    async def remove(self, found: Found) -> bool:
        """Removes a record that was found; False when it has changed since."""
        same = _same(found)
        result = await self._call(lambda: self._collection.delete_one(same))
        return bool(result.deleted_count)

    async def remove_all(self, filter: Filter) -> int:
        """Removes every match."""
        result = await self._call(lambda: self._collection.delete_many(filter))
        return int(result.deleted_count)

    async def update_first(
        self, filter: Filter, update: Filter, keys: Keys, *, upsert: bool
    ) -> Found | None:
        """Changes the first match in one step, and returns it as it is afterwards."""
        raw = await self._call(
            lambda: self._collection.find_one_and_update(
                filter,
                update,
                sort=keys or None,
                upsert=upsert,
                return_document=ReturnDocument.AFTER,
                maxTimeMS=_QUERY_MS,
            )
        )
        return None if raw is None else (await decode_all([raw]))[0]

    async def update_all(self, filter: Filter, update: Filter) -> int:
        """Changes every match; returns how many there were."""
        result = await self._call(lambda: self._collection.update_many(filter, update))
        return int(result.matched_count)

    async def get(self, id: str) -> Found | None:
        """The record with this `_id`."""
        raw = await self._call(
            lambda: self._collection.find_one({"_id": id}, max_time_ms=_QUERY_MS)
        )
        return None if raw is None else (await decode_all([raw]))[0]

    async def count(self, filter: Filter) -> int:
        """How many there are."""
        return int(
            await self._call(lambda: self._collection.count_documents(filter, maxTimeMS=_QUERY_MS))
        )

    async def page(
        self,
        filter: Filter,
        keys: Keys,
        *,
        skip: int,
        limit: int | None,
        tops: Sequence[str] | None,
    ) -> list[Found]:
        """The matches in order, of which only the top-level fields `tops` need be given."""
        rows = await self._call(
            lambda: self._collection.find(
                filter,
                None if tops is None else [*tops, VERSION],
                sort=list(keys),
                skip=skip,
                limit=limit or 0,
                max_time_ms=_QUERY_MS,
            ).to_list(None)
        )
        return await decode_all(rows)

    async def aggregate(self, pipeline: Sequence[Filter]) -> list[RawBSONDocument]:
        """What a pipeline gives, undecoded."""
        return await self._call(
            lambda: self._collection.aggregate(pipeline, maxTimeMS=_QUERY_MS).to_list(None)
        )

    async def batches(
        self, filter: Filter, keys: Keys
    ) -> AsyncGenerator[list[RawBSONDocument], None]:
        """All matches, undecoded, some hundred at a time. Close the generator."""
        async with self._connection.scanning():
            cursor = self._collection.find(
                filter, sort=list(keys) or None, batch_size=BATCH, max_time_ms=_QUERY_MS
            )
            try:
                while rows := await self._call(lambda: cursor.to_list(BATCH)):
                    yield rows
            finally:
                if cursor.alive:
                    await cursor.close()

    async def _write(self, action: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await self._call(action)
        except ServerRefused as refused:
            raise Invalid(f"MongoDB does not take this record: {refused.message}") from refused

    async def _call(self, action: Callable[[], Awaitable[Result]]) -> Result:
        return await self._connection.call(self.name, action)


def _same(found: Found) -> Filter:
    """What is still the record that was found; one that others put there has no version yet."""
    return {"_id": found.record["_id"], VERSION: found.version or None}
