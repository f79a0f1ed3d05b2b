"""API keys as records."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from machina.store import Store
from machina.store.base import Duplicate
from machina.store.keys import KeyRecord

CREATED = datetime(2026, 1, 31, tzinfo=UTC)


def key(id: str, prefix: str, project: str = "p") -> KeyRecord:
    return {
        "_id": id, "project": project, "name": "ci", "scope": "admin", "prefix": prefix,
        "digest": "00ff", "created": CREATED, "revoked": None, "expires": None,
    }  # fmt: skip


async def test_a_key_is_found_by_its_prefix(store: Store) -> None:
    await store.keys.insert(key("1", "abc"))
    assert await store.keys.by_prefix("abc") == key("1", "abc")
    assert await store.keys.by_prefix("ab") is None


async def test_a_prefix_is_taken_once_over_all_projects(store: Store) -> None:
    await store.keys.insert(key("1", "abc"))
    with pytest.raises(Duplicate):
        await store.keys.insert(key("2", "abc", "q"))


async def test_keys_are_listed_by_project(store: Store) -> None:
    for record in (key("1", "a"), key("2", "b", "q"), key("3", "c")):
        await store.keys.insert(record)
    assert [record["_id"] for record in await store.keys.list("p")] == ["1", "3"]


async def test_a_key_is_revoked_once_and_stays_known(store: Store) -> None:
    await store.keys.insert(key("1", "a"))
    assert not await store.keys.revoke("1", project="q")
    before = await store.now()
    assert await store.keys.revoke("1", project="p")
    assert not await store.keys.revoke("1")
    assert not await store.keys.revoke("2")
    found = await store.keys.by_prefix("a")
    assert found is not None
    assert found["revoked"] is not None
    assert found["revoked"] >= before
