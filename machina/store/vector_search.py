"""Finds the documents most like a vector: by an index of the server, else by looking at each."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import structlog

from machina.store.base import Collection, Query, Record, Sort
from machina.store.vectors import Embedding, similarities

log = structlog.get_logger(__name__)

VECTOR: Final = "embedding"
SPACE: Final = "embedding_space"
MAX_POOL: Final = 10_000
_PAGE: Final = 500
"""Records in memory at once, however large the pool."""
_NEWEST_FIRST: Final[Sort] = (("_id", -1),)

Scored = tuple[str, float]
"""An `_id`, and the cosine with what was asked for."""


def embedding_fields(embedding: Embedding | None) -> dict[str, Any]:
    """How an embedding is stored beside a record's other fields; nothing for None."""
    return {} if embedding is None else {VECTOR: embedding.vector, SPACE: embedding.space}


class VectorSearch:
    """Searches one collection whose records may have an embedding."""

    def __init__(self, collection: Collection, *, index: str | None = None) -> None:
        """`index`: the name of the server's vector index, where the operator made one."""
        self._collection = collection
        self._index = index

    async def nearest(
        self,
        query: Query,
        to: Embedding,
        *,
        sort: Sort,
        pool: int,
        at_least: float,
        limit: int,
    ) -> list[Scored]:
        """The best `limit` of the first `pool` matches with an embedding of the same kind.

        The best comes first, and of equal ones the first in the pool's order. Raises what
        `Collection.find` raises.
        """
        comparable = {"$and": [query, {SPACE: to.space}]}
        scored = await self._by_index(query, comparable, to, pool)
        if scored is None:
            scored = await self._by_looking(comparable, to, sort, min(pool, MAX_POOL), limit)
        good = [(id, score) for id, score in scored if score >= at_least]
        return heapq.nsmallest(limit, good, key=lambda item: -item[1])

    async def _by_index(
        self, query: Query, comparable: Query, to: Embedding, pool: int
    ) -> list[Scored] | None:
        if self._index is None:
            return None
        found = await self._collection.nearest(
            comparable, VECTOR, to.vector, index=self._index, limit=min(pool, MAX_POOL)
        )
        if found is None:
            log.warning(
                "vectors.index_unused",
                index=self._index,
                reason="the store has no such index, or it cannot take this query",
                fields=sorted(query),
            )
        return found

    async def _by_looking(
        self, query: Query, to: Embedding, sort: Sort, pool: int, limit: int
    ) -> list[Scored]:
        best: list[Scored] = []
        async for records in self._pages(query, sort or _NEWEST_FIRST, pool):
            scored = await asyncio.to_thread(_compare, records, to)
            best = heapq.nsmallest(limit, [*best, *scored], key=lambda item: -item[1])
        return best

    async def _pages(self, query: Query, sort: Sort, pool: int) -> AsyncIterator[list[Record]]:
        """The matches' vectors, some at a time; by `_id` each page goes on where one ended."""
        by_id = [*sort] == [*_NEWEST_FIRST]
        seen, asked = 0, query
        while seen < pool:
            wanted = min(_PAGE, pool - seen)
            page = await self._collection.find(
                asked, sort=sort, skip=0 if by_id else seen, limit=wanted, fields=[VECTOR]
            )
            yield page
            if len(page) < wanted:
                return
            seen += len(page)
            if by_id:
                asked = {"$and": [query, {"_id": {"$lt": page[-1]["_id"]}}]}


def _compare(records: Sequence[Record], to: Embedding) -> list[Scored]:
    """The scores of those records whose vector has the same dimension."""
    found = [
        (record["_id"], vector)
        for record in records
        if isinstance(vector := record.get(VECTOR), bytes) and len(vector) == len(to.vector)
    ]
    scores = similarities([vector for _, vector in found], to.vector)
    return [(id, score) for (id, _), score in zip(found, scores, strict=True)]
