"""Documents: the data that runs read and write. `{_id, project, name, value, metadata, …}`.

Unlike definitions they are stored field by field, so that queries reach into `value` and `metadata`
by dotted path. `document_id` in a query means `_id`. An embedding lies beside the other fields and
is never given away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from machina.ids import ObjectIdMint
from machina.store.base import Backend, Change, Query, QueryRefused, Record, Sort
from machina.store.document_batches import Batch, UpsertItem, plan_batch, write_batch
from machina.store.document_claims import Claims
from machina.store.filters import find_page, rename_sort, rewrite_query, scoped
from machina.store.matching import conjuncts
from machina.store.vector_search import SPACE, VECTOR, VectorSearch, embedding_fields
from machina.store.vectors import Embedding

_OURS: Final = ("_id", "project", "created", "updated", VECTOR, SPACE)
"""Fields that only the store sets."""
_HIDDEN: Final = (VECTOR, SPACE)
_DATES: Final = ("created", "updated")
_NEWEST_FIRST: Final[Sort] = (("_id", -1),)


class DocumentStore:
    """The documents of all projects. Every call raises `StoreDown` when the store is away,
    and `QueryRefused` for a query that is not allowed."""

    def __init__(
        self, backend: Backend, mint: ObjectIdMint, *, vector_index: str | None = None
    ) -> None:
        """`vector_index`: the name of a vector index over the documents, where there is one."""
        self._documents = backend.collection("documents")
        self._vectors = VectorSearch(self._documents, index=vector_index)
        self._claims = Claims(backend)
        self._backend = backend
        self._mint = mint

    async def get(self, project: str, id: str) -> Record | None:
        """The document with this id."""
        found = await self._documents.get(id)
        return _shown(found) if found is not None and found["project"] == project else None

    async def find(
        self, project: str, query: Query, *, sort: Sort = (), skip: int = 0, limit: int = 10
    ) -> list[Record]:
        """Matching documents, newest first unless sorted."""
        found = await self._documents.find(
            _asked(project, query), sort=_order(sort), skip=skip, limit=limit
        )
        return [_shown(record) for record in found]

    async def search(
        self, project: str, query: Query, *, sort: Sort = (), skip: int = 0, limit: int = 10
    ) -> tuple[list[Record], int]:
        """One page of the matching documents, and how many match in all."""
        found, total = await find_page(
            self._documents, _asked(project, query), sort=_order(sort), skip=skip, limit=limit
        )
        return [_shown(record) for record in found], total

    async def nearest(
        self,
        project: str,
        query: Query,
        to: Embedding,
        *,
        sort: Sort = (),
        pool: int,
        at_least: float,
        limit: int,
    ) -> list[tuple[Record, float]]:
        """The matching documents most like an embedding, the best first, each with its cosine.

        Only the first `pool` matches (10 000 at most) that have an embedding of the same kind are
        looked at.
        """
        scored = await self._vectors.nearest(
            _asked(project, query),
            to,
            sort=_order(sort),
            pool=pool,
            at_least=at_least,
            limit=limit,
        )
        ids = [id for id, _ in scored]
        found = await self._documents.find(
            {"_id": {"$in": ids}, "project": project}, limit=len(ids)
        )
        documents = {record["_id"]: record for record in found}
        return [(_shown(documents[id]), score) for id, score in scored if id in documents]

    async def insert(
        self,
        project: str,
        document: Mapping[str, Any],
        *,
        id: str | None = None,
        embedding: Embedding | None = None,
    ) -> Record:
        """Adds a document, with an id of its own unless one is reserved for it; returns it.

        Raises:
            Duplicate: the reserved id is taken.
        """
        now = await self._backend.now()
        record = _authored(document) | {
            "_id": id or self._mint(now.timestamp()),
            "project": project,
            "created": now,
            "updated": now,
            **embedding_fields(embedding),
        }
        await self._documents.insert(record)
        return _shown(record)

    async def update(
        self,
        project: str,
        query: Query,
        fields: Mapping[str, Any],
        *,
        insert: Mapping[str, Any] | None = None,
        id: str | None = None,
        embedding: Embedding | None = None,
        embeds: bool = False,
    ) -> Record | None:
        """Sets fields (dotted paths allowed) of the newest matching document and returns it.

        Nothing matches: with `insert`, a document of the query's equalities, these fields and those
        of `insert` (other ones) is added in the same step, under `id` if one is reserved; without
        it, None is returned. However many do this at once, one document is added. `embeds` removes
        an embedding that does not fit any more when there is no new one.
        """
        now, asked = await self._backend.now(), _asked(project, query)
        change: dict[str, Any] = {"$set": _authored(fields) | {"updated": now}}
        change["$set"] |= embedding_fields(embedding)
        if embeds and embedding is None:
            change["$unset"] = dict.fromkeys(_HIDDEN, "")
        if insert is not None:
            change["$setOnInsert"] = _authored(insert) | {"created": now}
            if not _names_id(asked):
                change["$setOnInsert"]["_id"] = id or self._mint(now.timestamp())
        try:
            record = await self._change(asked, change)
        except QueryRefused as refused:
            if refused.field != "metadata":
                raise
            # A document without metadata may say so with null, which has no entries to set.
            await self._change(asked, {"$set": {"metadata": {}}})
            record = await self._change(asked, change)
        return None if record is None else _shown(record)

    async def plan(
        self, project: str, items: Sequence[UpsertItem], *, name: str | None = None
    ) -> Batch:
        """Decides where many items are to be written: each over the newest document that it
        matches, those of earlier items included, or into a new one.

        They are decided on together, so that another writer of the same documents at the same time
        may be overlooked. `name`: of the documents that items may match, and of new ones.
        """
        scope = {"project": project} if name is None else {"project": project, "name": name}
        now = await self._backend.now()
        return await plan_batch(self._documents, scope, items, now=now, mint=self._mint)

    async def write(self, batch: Batch) -> list[Record]:
        """Writes what was decided, each document once, and returns them. May be repeated."""
        return [_shown(record) for record in await write_batch(self._documents, batch)]

    async def delete(self, project: str, query: Query) -> int:
        """Removes every matching document; returns how many there were."""
        return await self._documents.delete(_asked(project, query))

    async def _change(self, asked: Query, change: Change) -> Record | None:
        if "$setOnInsert" not in change:
            return await self._documents.find_and_update(asked, change, sort=_NEWEST_FIRST)
        return await self._claims.upsert(self._documents, asked, change, sort=_NEWEST_FIRST)


def _asked(project: str, query: Query) -> dict[str, Any]:
    return scoped(project, rewrite_query(query, rename=_stored_path, dates=_DATES))


def _order(sort: Sort) -> Sort:
    return rename_sort(sort, _stored_path) or _NEWEST_FIRST


def _names_id(query: Query) -> bool:
    return any(path == "_id" and name == "$eq" for path, name, _ in conjuncts(query))


def _stored_path(path: str) -> str:
    top, dot, rest = path.partition(".")
    return f"_id{dot}{rest}" if top == "document_id" else path


def _authored(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _OURS}


def _shown(record: Record) -> Record:
    for name in _HIDDEN:
        record.pop(name, None)
    return record
