"""Upserts of documents that add one document, however many happen at once in many processes.

A backend that decides alone whether to add does so in one step. MongoDB does not without a unique
index, which metadata cannot have: two upserts that see nothing both insert. There, whoever would
insert first takes a claim: a record whose `_id` is made of the query, so that only one can have it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from datetime import timedelta
from typing import Final

import structlog

from machina.store.base import Backend, Change, Collection, Duplicate, Query, Record, Sort
from machina.store.ordering import value_key

log = structlog.get_logger(__name__)

EXPIRY: Final = timedelta(seconds=15)
"""A claim this old belongs to a process that died: no two calls of a store take as long."""
_PAUSE_SECONDS: Final = 0.02


class Claims:
    """The claims of one store."""

    def __init__(self, backend: Backend) -> None:
        self._claims = backend.collection("claims")
        self._backend = backend

    async def upsert(
        self, collection: Collection, query: Query, change: Change, *, sort: Sort
    ) -> Record | None:
        """What `Collection.find_and_update` does with `upsert`, and never twice."""
        if collection.upserts_once:
            return await collection.find_and_update(query, change, sort=sort, upsert=True)
        plain = {name: fields for name, fields in change.items() if name != "$setOnInsert"}
        while True:
            found = await collection.find_and_update(query, plain, sort=sort)
            if found is not None:
                return found
            claim = _claim_of(query)
            if await self._take(claim):
                try:
                    return await collection.find_and_update(query, change, sort=sort, upsert=True)
                finally:
                    await self._claims.delete({"_id": claim})
            await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  # only apart

    async def _take(self, claim: str) -> bool:
        now = await self._backend.now()
        try:
            await self._claims.insert({"_id": claim, "taken": now})
        except Duplicate:
            stale = {"_id": claim, "taken": {"$lt": now - EXPIRY}}
            if await self._claims.delete(stale):
                log.warning("documents.claim_abandoned", claim=claim)
            return False
        return True


def _claim_of(query: Query) -> str:
    return hashlib.sha256(repr(value_key(dict(query))).encode()).hexdigest()
