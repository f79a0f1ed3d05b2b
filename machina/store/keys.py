"""API keys as they are stored: a prefix to find them by and a digest, never the key itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict, cast

from machina.store.base import Backend


class KeyRecord(TypedDict):
    """One key. `prefix` is the public part; `digest` a hash in hex; `revoked` says since when."""

    _id: str
    project: str
    name: str
    scope: str
    prefix: str
    digest: str
    created: datetime
    revoked: datetime | None
    expires: datetime | None


class KeyStore:
    """The keys of all projects. Every call raises `StoreDown` when the store is away."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._keys = backend.collection("keys")

    async def insert(self, record: KeyRecord) -> None:
        """Adds a key.

        Raises:
            Duplicate: its prefix is taken; mint another.
        """
        await self._keys.insert(cast(dict[str, Any], record))

    async def by_prefix(self, prefix: str) -> KeyRecord | None:
        """The key with this prefix, revoked and expired ones included."""
        found = await self._keys.find({"prefix": prefix}, limit=1)
        return cast(KeyRecord, found[0]) if found else None

    async def list(self, project: str) -> list[KeyRecord]:
        """All keys of a project, oldest first."""
        return [cast(KeyRecord, row) for row in await self._keys.find({"project": project})]

    async def revoke(self, id: str, *, project: str | None = None) -> bool:
        """Revokes a key (of this project, when given). False: there is none, or it was revoked."""
        query: dict[str, Any] = {"_id": id, "revoked": None}
        if project is not None:
            query["project"] = project
        change = {"$set": {"revoked": await self._backend.now()}}
        return await self._keys.find_and_update(query, change) is not None
