"""Agents, workflows, prompts, connectors, mappings, skills: kept as authored, found by name or id.

A stored definition is `{_id, project, name, status?, created, updated, revision, body}`. `body` is
what the author wrote, untouched: keys with `$` and dots included. What is returned is the body with
the server's fields laid over it, and queries are written against that: `name` and `status` mean the
stored ones, any other path (`context.config-frequency`) is looked up in the body. `status` is the
one authored field that outlives a definition that is saved again without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from machina.definitions.base import check_name
from machina.errors import Conflict
from machina.ids import ObjectIdMint, is_object_id
from machina.store.base import Backend, Collection, Duplicate, Query, Record, Sort
from machina.store.filters import find_page, rename_sort, rewrite_query, scoped

Kind = Literal["agent", "workflow", "prompt", "connector", "mapping", "skill"]
_COLLECTIONS: Final[Mapping[Kind, str]] = {
    "agent": "agents",
    "workflow": "workflows",
    "prompt": "prompts",
    "connector": "connectors",
    "mapping": "mappings",
    "skill": "skills",
}
_OURS: Final = ("_id", "project", "created", "updated")
"""Fields that an author cannot set."""
_OUTSIDE: Final = (*_OURS, "name", "status")
_DATES: Final = ("created", "updated")
_NEWEST_FIRST: Final[Sort] = (("_id", -1),)
_MERGE_TRIES: Final = 8


class DefinitionStore:
    """The definitions of all projects. Every call raises `StoreDown` when the store is away."""

    def __init__(self, backend: Backend, mint: ObjectIdMint) -> None:
        self._backend = backend
        self._mint = mint

    async def get(self, project: str, kind: Kind, name_or_id: str) -> Record | None:
        """The definition with this id or, if there is none, with this name."""
        found = await self._find(project, kind, name_or_id)
        return None if found is None else _shown(found)

    async def search(
        self,
        project: str,
        kind: Kind,
        query: Query,
        *,
        sort: Sort = (),
        skip: int = 0,
        limit: int = 10,
    ) -> tuple[list[Record], int]:
        """One page of the matching definitions, newest first unless sorted, and how many match.

        Raises:
            QueryRefused: the query or the sort is not allowed.
        """
        asked = scoped(project, rewrite_query(query, rename=_stored_path, dates=_DATES))
        order = rename_sort(sort, _stored_path) or _NEWEST_FIRST
        rows, total = await find_page(self._of(kind), asked, sort=order, skip=skip, limit=limit)
        return [_shown(row) for row in rows], total

    async def save(
        self, project: str, kind: Kind, definition: Mapping[str, Any]
    ) -> tuple[str, bool]:
        """Writes a definition over the one with its name; returns its id and whether it is new.

        Raises:
            Invalid: without a usable name.
        """
        return await self._save(project, kind, definition, {})

    async def install(
        self, project: str, kind: Kind, definition: Mapping[str, Any], *, status: str | None
    ) -> tuple[str, bool]:
        """Like `save`, for a definition out of a template, which may say no status of its own.

        Args:
            status: What counts then, until somebody sets one: that one survives installations.

        Raises:
            Invalid: without a usable name.
        """
        if status is None or "status" in definition:
            return await self._save(project, kind, definition, {})
        named = {"project": project, "name": _name_of(definition)}
        found = await self._of(kind).find(named, limit=1)
        if found and "status" in found[0]["body"]:
            kept = {**definition, "status": found[0].get("status")}
            return await self._save(project, kind, kept, {})
        return await self._save(project, kind, definition, {"status": status})

    async def _save(
        self, project: str, kind: Kind, definition: Mapping[str, Any], more: dict[str, Any]
    ) -> tuple[str, bool]:
        now = await self._backend.now()
        fresh_id = self._mint(now.timestamp())
        saved = await self._of(kind).find_and_update(
            {"project": project, "name": _name_of(definition)},
            {
                "$set": _fields(definition) | more | {"updated": now},
                "$setOnInsert": {"_id": fresh_id, "created": now},
                "$inc": {"revision": 1},
            },
            upsert=True,
        )
        id = fresh_id if saved is None else str(saved["_id"])
        return id, id == fresh_id

    async def create(self, project: str, kind: Kind, definition: Mapping[str, Any]) -> str:
        """Adds a definition and returns its id.

        Raises:
            Invalid: without a usable name.
            Duplicate: the name is taken.
        """
        now = await self._backend.now()
        record = _fields(definition) | {
            "_id": self._mint(now.timestamp()),
            "project": project,
            "name": _name_of(definition),
            "created": now,
            "updated": now,
            "revision": 1,
        }
        try:
            await self._of(kind).insert(record)
        except Duplicate:
            raise Duplicate(
                f"This project has a {kind} named '{record['name']}'.", field="name"
            ) from None
        return str(record["_id"])

    async def replace(
        self, project: str, kind: Kind, id: str, definition: Mapping[str, Any]
    ) -> Record | None:
        """Puts another body in place of the one with this id; without a name it keeps its own.

        None when there is no such definition.

        Raises:
            Invalid: an unusable name.
            Duplicate: another definition has the new name.
        """
        changed: dict[str, Any] = _fields(definition) | {"updated": await self._backend.now()}
        if "name" in definition:
            changed["name"] = _name_of(definition)
        replaced = await self._of(kind).find_and_update(
            {"_id": id, "project": project}, {"$set": changed, "$inc": {"revision": 1}}
        )
        return None if replaced is None else _shown(replaced)

    async def merge(
        self, project: str, kind: Kind, id: str, fields: Mapping[str, Any]
    ) -> Record | None:
        """Lays top-level fields over the definition with this id; None when there is none.

        Raises:
            Invalid: an unusable name.
            Duplicate: another definition has the new name.
            Conflict: others kept changing it meanwhile.
        """
        for _ in range(_MERGE_TRIES):
            found = await self._of(kind).get(id)
            if found is None or found["project"] != project:
                return None
            changed = _fields({**found["body"], **fields})
            changed["updated"] = await self._backend.now()
            if "name" in fields:
                changed["name"] = _name_of(fields)
            merged = await self._of(kind).find_and_update(
                {"_id": id, "project": project, "revision": found["revision"]},
                {"$set": changed, "$inc": {"revision": 1}},
            )
            if merged is not None:
                return _shown(merged)
        raise Conflict(f"The {kind} '{id}' is being changed by others; try again.")

    async def delete(self, project: str, kind: Kind, id: str) -> bool:
        """Removes the definition with this id; False when there is none."""
        return await self._of(kind).delete({"_id": id, "project": project}) == 1

    def _of(self, kind: Kind) -> Collection:
        return self._backend.collection(_COLLECTIONS[kind])

    async def _find(self, project: str, kind: Kind, name_or_id: str) -> Record | None:
        collection = self._of(kind)
        if is_object_id(name_or_id):
            found = await collection.get(name_or_id)
            if found is not None and found["project"] == project:
                return found
        named = await collection.find({"project": project, "name": name_or_id}, limit=1)
        return named[0] if named else None


def _name_of(definition: Mapping[str, Any]) -> str:
    return check_name(definition.get("name"))


def _fields(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The stored form of what an author wrote: the body, and the status if there is one."""
    body = {key: value for key, value in definition.items() if key not in _OURS}
    return {"body": body} | ({"status": body["status"]} if "status" in body else {})


def _stored_path(path: str) -> str:
    top = path.partition(".")[0]
    return path if top in _OUTSIDE else f"body.{path}"


def _shown(record: Record) -> Record:
    server = {field: record[field] for field in _OUTSIDE if field in record}
    return {"_id": record["_id"], **record["body"], **server}
