"""The port of the store: named collections of JSON records, queried and changed in one language.

A backend implements `Backend` and `Collection` and nothing else; every rule about definitions,
documents, runs, keys and leases is written once, above it. Records are dictionaries whose `_id` is
text. Values are JSON values, `datetime` (aware, UTC, to the millisecond) and `bytes`. Field names
are any text without NUL and come back as they were, `$ref` and `a.b` included, in their order. A
field that an index names (indexes.py) holds one value, never a list or an object.

Queries are MongoDB queries over a closed set of operators (`QUERY_OPERATORS`); any other is refused
by name. A `$push` appends one value; nothing of MongoDB's that is not listed here may be used.
Changes are `$set $unset $inc $max $push`, all with dotted paths; `$setOnInsert` with `upsert`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from machina.errors import Conflict, Invalid

Record = dict[str, Any]
Query = Mapping[str, Any]
Change = Mapping[str, Mapping[str, Any]]
Sort = Sequence[tuple[str, Literal[1, -1]]]

QUERY_OPERATORS: Final = frozenset(
    ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$regex", "$options")
) | frozenset(("$not", "$and", "$or", "$nor", "$elemMatch", "$all", "$size"))
CHANGE_OPERATORS: Final = frozenset(("$set", "$unset", "$inc", "$max", "$push", "$setOnInsert"))


class Duplicate(Conflict):
    """A record with this `_id`, or with these values of a unique index, exists."""

    code, title = "duplicate", "Record exists"


class QueryRefused(Invalid):
    """A query or change uses something outside the closed language; the message names it."""

    code, title = "query_refused", "Query refused"


class Collection(Protocol):
    """Records of one kind. Every call raises `StoreDown` when the store does not answer."""

    upserts_once: bool
    """Whether upserts that happen at once and see nothing add one record, not one each."""

    async def insert(self, record: Record) -> None:
        """Adds a record.

        Raises:
            Duplicate: the `_id` or a unique index is taken; nothing was written.
            Invalid: the record holds what cannot be stored.
        """

    async def get(self, id: str) -> Record | None:
        """The record with this `_id`."""

    async def find(
        self,
        query: Query,
        *,
        sort: Sort = (),
        skip: int = 0,
        limit: int | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        """Matching records in `sort` order, equal ones by `_id`; `fields` projects (plus `_id`).

        Raises:
            QueryRefused: the query is not allowed, or took too long.
        """

    async def nearest(
        self, query: Query, path: str, vector: bytes, *, index: str, limit: int
    ) -> list[tuple[str, float]] | None:
        """Ids and cosines of the matches most like a vector, the best first, by a vector index.

        None when this backend has no vector indexes, or cannot decide this query with one.
        """

    async def count(self, query: Query) -> int:
        """How many records match."""

    async def find_and_update(
        self, query: Query, change: Change, *, sort: Sort = (), upsert: bool = False
    ) -> Record | None:
        """Changes the first matching record atomically and returns it as it is afterwards.

        None when nothing matched and `upsert` is false. An upsert inserts the equality parts of the
        query, then `$setOnInsert` and the change.

        Raises:
            Duplicate: the change would break a unique index.
        """

    async def update_many(self, query: Query, change: Change) -> int:
        """Changes every matching record; returns how many matched."""

    async def delete(self, query: Query) -> int:
        """Removes every matching record; returns how many there were."""


class Backend(Protocol):
    """A place where collections live. Open it with `open_backend`; usable from one event loop."""

    def collection(self, name: str) -> Collection:
        """The collection of this name, one of those declared in `store/indexes.py`."""

    async def now(self) -> datetime:
        """The store's own clock: what leases and deadlines are measured by."""
