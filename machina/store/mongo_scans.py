"""Finds records: the server narrows, the exact test decides where the server cannot."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from bson.raw_bson import RawBSONDocument

from machina.store.base import Query, QueryRefused, Record, Sort
from machina.store.matching import compile_query
from machina.store.mongo_documents import Documents, Keys
from machina.store.mongo_errors import TookTooLong
from machina.store.mongo_plans import Plan, plan_query
from machina.store.mongo_values import INDEXED, Found, decode, is_id, stored_path
from machina.store.ordering import RecordOrder

MAX_SCAN_SECONDS: Final = 5.0
"""CPU time that one query may spend on records that the server could not decide about."""


class Scan:
    """One query in its order.

    Raises:
        QueryRefused: the query or sort is not allowed; while running, it took too long.
    """

    def __init__(self, documents: Documents, query: Query, sort: Sort = ()) -> None:
        self.query = query
        self._documents = documents
        self._test = compile_query(query)
        self._order = RecordOrder(sort)
        id = query.get("_id")
        self.id = id if is_id(id) else None
        """Set when the query names the one record that can match."""

    @property
    def keys(self) -> Keys:
        """The order in the server's terms; none where there is nothing to order."""
        if self.id is not None:
            return ()
        return [(stored_path(field), direction) for field, direction in self._order.keys]

    def test(self, record: Record) -> bool:
        """Whether a record matches."""
        return self._test(record)

    async def plan(self) -> Plan:
        """What the server at hand may be asked."""
        faithful = await self._documents.is_faithful()
        return plan_query(self.query, INDEXED[self._documents.name], faithful=faithful)

    async def first(self) -> Found | None:
        """The first match in order."""
        if self.id is not None:
            found = await self._documents.get(self.id)
            return found if found is not None and self._test(found.record) else None
        return next(iter(await self.find(0, 1)), None)

    async def find(
        self, skip: int, limit: int | None, tops: Sequence[str] | None = None
    ) -> list[Found]:
        """The matches in order, without the first `skip`, `limit` of them at most.

        `tops` are the top-level fields that are wanted; others may be there as well.
        """
        end = None if limit is None else skip + limit
        if self.id is not None:
            found = await self.first()
            return [] if found is None else [found][skip:end]
        plan, faithful = await self.plan(), await self._documents.is_faithful()
        ordered = faithful or [field for field, _ in self._order.keys] == ["_id"]
        if not (plan.exact and ordered):
            return (await self._sifted(plan, ordered, end))[skip:end]
        try:
            return await self._documents.page(
                plan.filter, self.keys, skip=skip, limit=limit, tops=tops if faithful else None
            )
        except TookTooLong as late:
            raise self._refusal(plan, late) from late

    async def count(self) -> int:
        """How many records match."""
        if self.id is not None:
            return int(await self.first() is not None)
        plan = await self.plan()
        if not plan.exact:
            async with aclosing(self.matches(plan)) as matches:
                return sum([len(some) async for some in matches])
        try:
            return await self._documents.count(plan.filter)
        except TookTooLong as late:
            raise self._refusal(plan, late) from late

    async def matches(self, plan: Plan, keys: Keys = ()) -> AsyncGenerator[list[Found], None]:
        """All matches, some at a time. Close the generator."""
        spent = 0.0
        try:
            async with aclosing(self._documents.batches(plan.filter, keys)) as batches:
                async for rows in batches:
                    found, seconds = await asyncio.to_thread(self._sift, rows)
                    yield found
                    spent += seconds
                    if spent > MAX_SCAN_SECONDS:
                        raise self._too_long()
        except TookTooLong as late:
            raise self._refusal(plan, late) from late

    async def _sifted(self, plan: Plan, ordered: bool, end: int | None) -> list[Found]:
        """The matches up to `end`, tested here, and put in order where the server does not."""
        kept: list[Found] = []
        async with aclosing(self.matches(plan, self.keys if ordered else ())) as matches:
            async for some in matches:
                kept += some
                if end is None or len(kept) < end:
                    continue
                if ordered:
                    return kept
                kept = await asyncio.to_thread(self._first, kept, end)
        return kept if ordered else await asyncio.to_thread(self._first, kept, end)

    def _sift(self, rows: Sequence[RawBSONDocument]) -> tuple[list[Found], float]:
        began = time.thread_time()
        found = [found for row in rows if self._test((found := decode(row)).record)]
        return found, time.thread_time() - began

    def _first(self, found: list[Found], count: int | None) -> list[Found]:
        def key(item: Found) -> tuple[object, ...]:
            return self._order(item.record)

        return sorted(found, key=key) if count is None else heapq.nsmallest(count, found, key=key)

    def _refusal(self, plan: Plan, late: TookTooLong) -> QueryRefused | TookTooLong:
        """Whose fault it is: a query by indexed fields only is late because the server is."""
        return late if plan.indexed else self._too_long()

    def _too_long(self) -> QueryRefused:
        return QueryRefused(
            f"The query on '{self._documents.name}' took more than {MAX_SCAN_SECONDS:g} s; "
            "narrow it down by name."
        )
