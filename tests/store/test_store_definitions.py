"""Definitions: opaque bodies, names, upsert by name, search on authored fields."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from machina.errors import Conflict, Invalid
from machina.ids import make_mint
from machina.store import Store
from machina.store.base import Backend, Duplicate, QueryRefused
from machina.store.definitions import DefinitionStore, Kind

AUTHORED: dict[str, Any] = {
    "title": "Hello",
    "name": "hello",
    "context": {"config-frequency": 0.5, "a.b": {"$ref": "#/x"}, "": None},
    "schema": {"$ref": "#/definitions/y", "$defs": {"$gt": [1, {"$date": "2026"}]}},
    "workflows": [{"name": "w", "condition": "$.get('x') is True"}],
}


async def search_names(store: Store, query: Any, **how: Any) -> list[str]:
    rows, total = await store.definitions.search("p", "agent", query, **how)
    assert total >= len(rows)
    return [row["name"] for row in rows]


async def test_a_definition_comes_back_exactly_as_authored(store: Store) -> None:
    before = await store.now()
    id, created = await store.definitions.save("p", "agent", AUTHORED)
    assert created
    found = await store.definitions.get("p", "agent", "hello")
    assert found is not None
    server = {key: found.pop(key) for key in ("_id", "project", "created", "updated")}
    assert found == AUTHORED
    assert [*found] == [*AUTHORED]
    assert server["_id"] == id
    assert server["project"] == "p"
    assert before <= server["created"] == server["updated"]
    assert await store.definitions.get("p", "agent", id) is not None


@pytest.mark.parametrize("kind", get_args(Kind))
async def test_every_kind_has_names_of_its_own(store: Store, kind: Kind) -> None:
    await store.definitions.create("p", kind, {"name": "x"})
    with pytest.raises(Duplicate, match=f"a {kind} named 'x'"):
        await store.definitions.create("p", kind, {"name": "x"})
    for other in get_args(Kind):
        assert (await store.definitions.get("p", other, "x") is not None) is (other == kind)


async def test_projects_do_not_see_each_other(store: Store) -> None:
    id, _ = await store.definitions.save("p", "agent", AUTHORED)
    assert await store.definitions.get("q", "agent", "hello") is None
    assert await store.definitions.get("q", "agent", id) is None
    assert await store.definitions.replace("q", "agent", id, {"name": "x"}) is None
    assert await store.definitions.merge("q", "agent", id, {"title": "x"}) is None
    assert not await store.definitions.delete("q", "agent", id)
    assert await store.definitions.search("q", "agent", {"$or": [{"project": "p"}]}) == ([], 0)
    assert await store.definitions.search("q", "agent", {"project": "p"}) == ([], 0)
    _, created = await store.definitions.save("q", "agent", AUTHORED)
    assert created


async def test_saving_again_replaces_the_body_and_keeps_id_and_birth(store: Store) -> None:
    id, _ = await store.definitions.save("p", "agent", AUTHORED)
    first = await store.definitions.get("p", "agent", id)
    again, created = await store.definitions.save("p", "agent", {"name": "hello", "v": 2})
    found = await store.definitions.get("p", "agent", id)
    assert first is not None
    assert found is not None
    assert (again, created) == (id, False)
    assert found["v"] == 2
    assert "context" not in found
    assert found["created"] == first["created"]
    assert found["updated"] >= first["updated"]


async def test_one_of_many_that_save_at_once_creates(store: Store) -> None:
    saved = await asyncio.gather(
        *(store.definitions.save("p", "agent", {"name": "x", "n": n}) for n in range(10))
    )
    assert len({id for id, _ in saved}) == 1
    assert sum(created for _, created in saved) == 1


async def test_an_author_cannot_set_the_servers_fields(store: Store) -> None:
    id = await store.definitions.create(
        "p", "agent", {"name": "x", "_id": "mine", "project": "q", "created": 1, "updated": 2}
    )
    found = await store.definitions.get("p", "agent", id)
    assert found is not None
    assert found["_id"] == id != "mine"
    assert found["project"] == "p"
    assert isinstance(found["created"], datetime)


async def test_a_status_outlives_a_save_without_one(store: Store) -> None:
    id, _ = await store.definitions.save("p", "agent", {"name": "x", "status": "inactive"})
    await store.definitions.save("p", "agent", {"name": "x", "v": 2})
    found = await store.definitions.get("p", "agent", id)
    assert found is not None
    assert found["status"] == "inactive"
    assert await search_names(store, {"status": "inactive"}) == ["x"]
    await store.definitions.merge("p", "agent", id, {"status": "active"})
    assert await search_names(store, {"status": "active"}) == ["x"]
    await store.definitions.save("p", "agent", {"name": "y"})
    assert await search_names(store, {"status": {"$exists": False}}) == ["y"]


async def test_replace_and_merge_by_id(store: Store) -> None:
    id = await store.definitions.create("p", "agent", AUTHORED)
    await store.definitions.create("p", "agent", {"name": "other"})
    merged = await store.definitions.merge("p", "agent", id, {"title": "New", "x.y": {"$z": 1}})
    assert merged is not None
    assert {k: merged[k] for k in (*AUTHORED, "x.y")} == AUTHORED | {
        "title": "New",
        "x.y": {"$z": 1},
    }
    replaced = await store.definitions.replace("p", "agent", id, {"title": "Only"})
    assert replaced is not None
    assert replaced["name"] == "hello"
    assert "context" not in replaced
    renamed = await store.definitions.merge("p", "agent", id, {"name": "renamed"})
    assert renamed is not None
    assert await store.definitions.get("p", "agent", "hello") is None
    assert await search_names(store, {"name": "renamed"}) == ["renamed"]
    for change in (store.definitions.merge, store.definitions.replace):
        with pytest.raises(Duplicate):
            await change("p", "agent", id, {"name": "other"})
        with pytest.raises(Invalid):
            await change("p", "agent", id, {"name": "a/b"})
        assert await change("p", "agent", "0" * 24, {"title": "x"}) is None


async def test_merges_at_once_lose_nothing(store: Store) -> None:
    id = await store.definitions.create("p", "agent", {"name": "x"})
    await asyncio.gather(
        *(store.definitions.merge("p", "agent", id, {f"f{n}": n}) for n in range(5))
    )
    found = await store.definitions.get("p", "agent", id)
    assert found is not None
    assert [found[f"f{n}"] for n in range(5)] == [0, 1, 2, 3, 4]


class Meddling:
    """A backend, and a collection of it, where others change a record just before each change."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._collection = backend.collection(name)
        self.now = backend.now
        self.get = self._collection.get

    def collection(self, _: str) -> Any:
        return self

    async def find_and_update(self, query: Any, change: Any) -> Any:
        await self._collection.find_and_update({"_id": query["_id"]}, {"$inc": {"revision": 1}})
        return await self._collection.find_and_update(query, change)


async def test_a_merge_that_never_gets_through_is_a_conflict(store: Store) -> None:
    id = await store.definitions.create("p", "agent", {"name": "x"})
    meddled = DefinitionStore(Meddling(store.backend, "agents"), make_mint())
    with pytest.raises(Conflict, match="changed by others"):
        await meddled.merge("p", "agent", id, {"title": "x"})


async def test_a_deleted_definition_is_gone(store: Store) -> None:
    id = await store.definitions.create("p", "agent", AUTHORED)
    assert await store.definitions.delete("p", "agent", id)
    assert not await store.definitions.delete("p", "agent", id)
    assert await store.definitions.get("p", "agent", "hello") is None


async def test_search_reaches_authored_fields(store: Store) -> None:
    await store.definitions.save("p", "agent", AUTHORED)
    await store.definitions.save(
        "p", "agent", {"name": "sport:Event", "status": "active", "tags": ["a", "b"]}
    )
    await store.definitions.save(
        "p", "agent", {"name": "xAI Grok", "context": {"config-frequency": 5}}
    )
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["xAI Grok", "sport:Event", "hello"]),
        ({"name": "sport:Event"}, ["sport:Event"]),
        ({"name": {"$regex": "^HE", "$options": "i"}}, ["hello"]),
        ({"status": "active"}, ["sport:Event"]),
        ({"context.config-frequency": {"$gte": 1}}, ["xAI Grok"]),
        ({"context.config-frequency": {"$exists": True}}, ["xAI Grok", "hello"]),
        ({"tags": "b"}, ["sport:Event"]),
        ({"workflows.name": "w"}, ["hello"]),
        ({"schema.$ref": "#/definitions/y"}, ["hello"]),
        ({"$or": [{"tags": "a"}, {"title": "Hello"}]}, ["sport:Event", "hello"]),
        ({"created": {"$gte": "2020-01-01"}}, ["xAI Grok", "sport:Event", "hello"]),
        ({"updated": {"$lt": "2020-01-01T00:00:00Z"}}, []),
        ({"body.title": "Hello"}, []),
        ({"revision": {"$exists": True}}, []),
    ]
    for query, expected in cases:
        assert await search_names(store, query) == expected, query
    assert await search_names(store, {}, sort=[("title", -1), ("name", 1)]) == [
        "hello", "sport:Event", "xAI Grok",
    ]  # fmt: skip
    assert await search_names(store, {}, skip=1, limit=1) == ["sport:Event"]
    rows, total = await store.definitions.search("p", "agent", {}, limit=1)
    assert (len(rows), total) == (1, 3)
    future = datetime.now(UTC) + timedelta(days=1)
    assert await search_names(store, {"created": {"$gt": future}}) == []


async def test_a_refused_search_names_the_authors_field(store: Store) -> None:
    with pytest.raises(QueryRefused) as refused:
        await store.definitions.search("p", "agent", {"context.x": {"$where": 1}})
    assert refused.value.field == "context.x.$where"


@pytest.mark.parametrize(
    "name", ["sport:Event", "xAI Grok", "ünï cödé", "a" * 200, "-", "a.b", "$x"]
)
async def test_real_names_are_welcome(store: Store, name: str) -> None:
    await store.definitions.create("p", "prompt", {"name": name})
    found = await store.definitions.get("p", "prompt", name)
    assert found is not None
    assert found["name"] == name


@pytest.mark.parametrize(
    "name", [None, 5, "", " ", "a/b", "a\nb", "a\0b", "a" * 201, "\u202eabc", ["x"]]
)
async def test_unusable_names_are_refused(store: Store, name: Any) -> None:
    for write in (store.definitions.create, store.definitions.save):
        with pytest.raises(Invalid) as refused:
            await write("p", "prompt", {"name": name})
        assert refused.value.field == "name"


async def test_a_name_that_looks_like_an_id_is_found(store: Store) -> None:
    await store.definitions.create("p", "prompt", {"name": "a" * 24})
    assert await store.definitions.get("p", "prompt", "a" * 24) is not None
