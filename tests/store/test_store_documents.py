"""Documents: search by path, update or insert in one step."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from machina.ids import is_object_id
from machina.store import Store
from machina.store.base import Duplicate, QueryRefused


async def test_a_document_is_found_by_paths_into_value_and_metadata(store: Store) -> None:
    value = {"sport:competition": {"@id": "urn:1"}, "when": datetime(2026, 1, 1, tzinfo=UTC)}
    added = await store.documents.insert(
        "p", {"name": "sport:Event", "value": value, "metadata": {"language": "de"}}
    )
    assert is_object_id(added["_id"])
    assert added["created"] == added["updated"]
    queries: list[dict[str, Any]] = [
        {"name": "sport:Event", "value.sport:competition.@id": "urn:1"},
        {"value.when": {"$lte": datetime(2026, 1, 1)}},  # noqa: DTZ001  # as expressions compare
        {"metadata.language": {"$in": ["de", "en"]}},
        {"_id": added["_id"]},
        {"document_id": added["_id"], "name": "sport:Event"},
        {"document_id": {"$in": [added["_id"]]}},
        {"$or": [{"document_id": added["_id"]}]},
        {"created": {"$gte": "2020-01-01"}},
    ]
    for query in queries:
        assert await store.documents.search("p", query) == ([added], 1), query
        assert await store.documents.find("q", query) == [], query
    assert await store.documents.get("p", added["_id"]) == added
    assert await store.documents.get("q", added["_id"]) is None


async def test_the_newest_comes_first_unless_sorted(store: Store) -> None:
    for number in range(4):
        await store.documents.insert("p", {"name": "n", "value": number % 3})
    found = await store.documents.find("p", {"name": "n"}, limit=3)
    assert [row["value"] for row in found] == [0, 2, 1]
    found = await store.documents.find("p", {"name": "n"}, sort=[("value", 1), ("document_id", 1)])
    assert [row["value"] for row in found] == [0, 0, 1, 2]
    rows, total = await store.documents.search("p", {}, skip=1, limit=2)
    assert ([row["value"] for row in rows], total) == ([2, 1], 4)


async def test_a_reserved_id_is_taken_once(store: Store) -> None:
    added = await store.documents.insert("p", {"name": "thread"}, id="f" * 24)
    assert added["_id"] == "f" * 24
    with pytest.raises(Duplicate):
        await store.documents.insert("p", {"name": "thread"}, id="f" * 24)


async def test_an_update_sets_fields_of_the_newest_match(store: Store) -> None:
    first = await store.documents.insert("p", {"name": "a", "metadata": {"k": 1, "other": 2}})
    second = await store.documents.insert("p", {"name": "a", "metadata": {"k": 1}})
    changed = await store.documents.update(
        "p", {"name": "a", "metadata.k": 1}, {"value": [1], "metadata.new": 3, "project": "q"}
    )
    assert changed is not None
    assert changed == second | {
        "value": [1], "metadata": {"k": 1, "new": 3}, "updated": changed["updated"],
    }  # fmt: skip
    assert await store.documents.get("p", first["_id"]) == first
    assert await store.documents.update("p", {"name": "none"}, {"value": 1}) is None
    assert await store.documents.update("q", {"name": "a"}, {"value": 1}) is None


async def test_an_update_inserts_once_when_nothing_matches(store: Store) -> None:
    async def update(number: int) -> dict[str, Any] | None:
        return await store.documents.update(
            "p",
            {"name": "a", "metadata.k": 1},
            {"value": number, "metadata.m": 2},
            insert={"title": "T"},
        )

    written = await asyncio.gather(*(update(number) for number in range(6)))
    rows, total = await store.documents.search("p", {})
    assert total == 1
    assert {row["_id"] for row in written if row is not None} == {rows[0]["_id"]}
    assert rows[0]["metadata"] == {"k": 1, "m": 2}
    assert (rows[0]["name"], rows[0]["title"], rows[0]["project"]) == ("a", "T", "p")
    assert rows[0]["created"] <= rows[0]["updated"]


async def test_an_insert_by_update_takes_a_reserved_or_asked_id(store: Store) -> None:
    query = {"name": "thread"}
    reserved = await store.documents.update("p", query, {"value": 1}, insert={}, id="f" * 24)
    asked = await store.documents.update("p", {"document_id": "e" * 24}, {"value": 2}, insert={})
    assert reserved is not None
    assert asked is not None
    assert (reserved["_id"], asked["_id"]) == ("f" * 24, "e" * 24)


async def test_delete_removes_what_matches_in_the_project(store: Store) -> None:
    for project, name in (("p", "a"), ("p", "a"), ("p", "b"), ("q", "a")):
        await store.documents.insert(project, {"name": name})
    assert await store.documents.delete("p", {"name": "a"}) == 2
    assert await store.documents.delete("p", {"project": "q"}) == 0
    assert len(await store.documents.find("q", {})) == 1
    assert [row["name"] for row in await store.documents.find("p", {})] == ["b"]


async def test_operators_outside_the_language_are_refused(store: Store) -> None:
    query = {"value": {"$where": "1"}}
    for call in (
        store.documents.find("p", query),
        store.documents.search("p", query),
        store.documents.update("p", query, {"value": 1}),
        store.documents.delete("p", query),
    ):
        with pytest.raises(QueryRefused):
            await call
