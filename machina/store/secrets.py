"""Secrets of projects: sealed on the way in, opened for runs, and otherwise known by name only.

A record is `{_id, project, name, key_id, nonce, data, created, updated}`; nothing of the value is
in it but the sealed bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import structlog

from machina.errors import Invalid, VaultLocked
from machina.ids import ObjectIdMint
from machina.store.base import Backend, Query, Record, Sort
from machina.store.filters import find_page, rename_sort, rewrite_query, scoped
from machina.vault import Sealed, Vault

log = structlog.get_logger(__name__)

MAX_VALUE: Final = 65_536
"""Characters of one value: far more than any key or service account has."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", re.ASCII)
_SHOWN: Final = ("name", "created", "updated")
_DATES: Final = ("created", "updated", "date")
_BY_NAME: Final[Sort] = (("name", 1),)


class SecretName(NamedTuple):
    """A secret as anybody may see it."""

    id: str
    name: str
    created: datetime
    updated: datetime


class SecretStore:
    """The secrets of all projects. Every call raises `StoreDown` when the store is away."""

    def __init__(self, backend: Backend, mint: ObjectIdMint, vault: Vault) -> None:
        self._secrets = backend.collection("secrets")
        self._backend = backend
        self._mint = mint
        self._vault = vault

    async def put(self, project: str, name: str, value: str) -> bool:
        """Keeps a value under a name, over the one that was there; True when there was none.

        Raises:
            Invalid: the name or the value cannot be kept; the message does not show the value.
            VaultLocked: there is no key to seal it with.
        """
        name = check_secret_name(name)
        now = await self._backend.now()
        fresh_id = self._mint(now.timestamp())
        saved = await self._secrets.find_and_update(
            {"project": project, "name": name},
            {
                "$set": self._sealed(project, name, _check_value(value)) | {"updated": now},
                "$setOnInsert": {"_id": fresh_id, "created": now},
            },
            upsert=True,
        )
        return saved is None or saved["_id"] == fresh_id

    async def names(
        self,
        project: str,
        query: Query | None = None,
        *,
        sort: Sort = (),
        skip: int = 0,
        limit: int = 10,
    ) -> tuple[list[SecretName], int]:
        """One page of the project's secrets, by name unless sorted, and how many match in all.

        Raises:
            QueryRefused: the query or the sort names anything but `_id`, `name` and the dates.
        """
        asked = scoped(project, rewrite_query(query or {}, rename=_public_path, dates=_DATES))
        order = rename_sort(sort, _public_path) or _BY_NAME
        rows, total = await find_page(self._secrets, asked, sort=order, skip=skip, limit=limit)
        return [SecretName(row["_id"], *(row[field] for field in _SHOWN)) for row in rows], total

    async def check(self, project: str, names: Iterable[str]) -> dict[str, bool]:
        """For each name, with or without its `$`, whether the project has a secret under it."""
        asked = list(names)
        plain = {name: name.removeprefix("$") for name in asked}
        query = {"project": project, "name": {"$in": list(plain.values())}}
        found = await self._secrets.find(query, fields=["name"])
        present = {row["name"] for row in found}
        return {name: plain[name] in present for name in asked}

    async def values(self, project: str) -> dict[str, str]:
        """Every secret of the project in the clear, for one run and for its memory only.

        What cannot be opened is left out and logged: it must not stop runs that do not need it.
        """
        opened: dict[str, str] = {}
        for record in await self._secrets.find({"project": project}):
            try:
                opened[record["name"]] = self._open(record)
            except VaultLocked as locked:
                log.warning(
                    "secret.locked", project=project, name=record["name"], reason=locked.message
                )
        return opened

    async def delete(self, project: str, name: str) -> bool:
        """Forgets a secret; False when there is none."""
        query = {"project": project, "name": name.removeprefix("$")}
        return await self._secrets.delete(query) > 0

    async def reseal(self) -> int:
        """Seals every secret that an older key sealed with the first one; returns how many.

        Afterwards the older keys are not needed any more.

        Raises:
            VaultLocked: there is no key, or one of the secrets cannot be opened.
        """
        older = {"key_id": {"$ne": self._vault.key_id}}
        resealed = 0
        for record in await self._secrets.find(older):
            project, name = record["project"], record["name"]
            sealed = self._sealed(project, name, self._open(record))
            # One that was set meanwhile has the first key already, and stays.
            unchanged = {"_id": record["_id"], "key_id": record["key_id"], "nonce": record["nonce"]}
            if await self._secrets.find_and_update(unchanged, {"$set": sealed}) is not None:
                resealed += 1
        return resealed

    def _sealed(self, project: str, name: str, value: str) -> dict[str, Any]:
        sealed = self._vault.seal(project, name, value)
        return {"key_id": sealed.key_id, "nonce": sealed.nonce, "data": sealed.data}

    def _open(self, record: Record) -> str:
        sealed = Sealed(record["key_id"], record["nonce"], record["data"])
        return self._vault.open(record["project"], record["name"], sealed)


def check_secret_name(name: object) -> str:
    """The name of a secret, without the `$` under which templates use it.

    Raises:
        Invalid: it is no such name.
    """
    plain = name.removeprefix("$") if isinstance(name, str) else ""
    if not _NAME.fullmatch(plain):
        raise Invalid(
            "A secret's name has 1 to 200 letters, digits, '_', '-' and '.', as "
            "TEMP_CONTEXT_VARIABLE_OPENAI_API_KEY.",
            field="name",
        )
    return plain


def _check_value(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_VALUE or "\0" in value:
        raise Invalid(
            f"A secret's value is text of 1 to {MAX_VALUE} characters; send a JSON document as "
            "text.",
            field="value",
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Invalid("The value holds half a character.", field="value") from None
    return value


def _public_path(path: str) -> str:
    renamed: Mapping[str, str] = {"id": "_id", "date": "created"}
    plain = renamed.get(path, path)
    if plain not in ("_id", *_SHOWN):
        raise Invalid(
            f"Secrets cannot be searched by '{path[:60]}'; there are: _id, name, created, updated.",
            field="filters",
        )
    return plain
