"""Documents: the data that runs read and write. `{_id, project, name, value, metadata, …}`.

Unlike definitions they are stored field by field, so that queries reach into `value` and `metadata`
by dotted path. `document_id` in a query means `_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina.ids import ObjectIdMint
from machina.store.base import Backend, Query, Record, Sort
from machina.store.filters import find_page, rename_sort, rewrite_query, scoped
from machina.store.matching import conjuncts

_OURS: Final = ("_id", "project", "created", "updated")
"""Fields that only the store sets."""
_DATES: Final = ("created", "updated")
_NEWEST_FIRST: Final[Sort] = (("_id", -1),)


class DocumentStore:
    """The documents of all projects. Every call raises `StoreDown` when the store is away,
    and `QueryRefused` for a query that is not allowed."""

    def __init__(self, backend: Backend, mint: ObjectIdMint) -> None:
        self._documents = backend.collection("documents")
        self._backend = backend
        self._mint = mint

    async def get(self, project: str, id: str) -> Record | None:
        """The document with this id."""
        found = await self._documents.get(id)
        return found if found is not None and found["project"] == project else None

    async def find(
        self, project: str, query: Query, *, sort: Sort = (), skip: int = 0, limit: int = 10
    ) -> list[Record]:
        """Matching documents, newest first unless sorted."""
        order = rename_sort(sort, _stored_path) or _NEWEST_FIRST
        return await self._documents.find(
            _asked(project, query), sort=order, skip=skip, limit=limit
        )

    async def search(
        self, project: str, query: Query, *, sort: Sort = (), skip: int = 0, limit: int = 10
    ) -> tuple[list[Record], int]:
        """One page of the matching documents, and how many match in all."""
        order = rename_sort(sort, _stored_path) or _NEWEST_FIRST
        return await find_page(
            self._documents, _asked(project, query), sort=order, skip=skip, limit=limit
        )

    async def insert(
        self, project: str, document: Mapping[str, Any], *, id: str | None = None
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
        }
        await self._documents.insert(record)
        return record

    async def update(
        self,
        project: str,
        query: Query,
        fields: Mapping[str, Any],
        *,
        insert: Mapping[str, Any] | None = None,
        id: str | None = None,
    ) -> Record | None:
        """Sets fields (dotted paths allowed) of the newest matching document and returns it.

        Nothing matches: with `insert`, a document of the query's equalities, these fields and those
        of `insert` (other ones) is added in the same step, under `id` if one is reserved; without
        it, None is returned.
        """
        now, asked = await self._backend.now(), _asked(project, query)
        change: dict[str, Any] = {"$set": _authored(fields) | {"updated": now}}
        if insert is not None:
            change["$setOnInsert"] = _authored(insert) | {"created": now}
            if not _names_id(asked):
                change["$setOnInsert"]["_id"] = id or self._mint(now.timestamp())
        return await self._documents.find_and_update(
            asked, change, sort=_NEWEST_FIRST, upsert=insert is not None
        )

    async def delete(self, project: str, query: Query) -> int:
        """Removes every matching document; returns how many there were."""
        return await self._documents.delete(_asked(project, query))


def _asked(project: str, query: Query) -> dict[str, Any]:
    return scoped(project, rewrite_query(query, rename=_stored_path, dates=_DATES))


def _names_id(query: Query) -> bool:
    return any(path == "_id" and name == "$eq" for path, name, _ in conjuncts(query))


def _stored_path(path: str) -> str:
    top, dot, rest = path.partition(".")
    return f"_id{dot}{rest}" if top == "document_id" else path


def _authored(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _OURS}
