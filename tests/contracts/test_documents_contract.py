"""What documents do alike on every backend: embeddings, many at once, upserts in a race."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from machina.ids import make_mint
from machina.store.base import Backend, Duplicate
from machina.store.document_batches import UpsertItem
from machina.store.documents import DocumentStore
from machina.store.vectors import Embedding
from tests.store.backends import Place, open_place


@pytest.fixture
def documents(backend: Backend) -> DocumentStore:
    return DocumentStore(backend, make_mint())


def meaning(*numbers: float, space: str = "s") -> Embedding:
    return Embedding.of(space, numbers)


async def nearest(documents: DocumentStore, *numbers: float, **how: Any) -> list[Any]:
    settings: dict[str, Any] = {"pool": 100, "at_least": 0.01, "limit": 5} | how
    project, query = settings.pop("project", "p"), settings.pop("query", {"name": "n"})
    found = await documents.nearest(project, query, meaning(*numbers), **settings)
    return [(record["value"], round(score, 3)) for record, score in found]


# Embeddings ------------------------------------------------------------------------------------


async def test_an_embedding_is_kept_and_never_given_away(
    documents: DocumentStore, backend: Backend
) -> None:
    added = await documents.insert("p", {"name": "n", "value": 1}, embedding=meaning(1, 0.5))
    changed = await documents.update("p", {"name": "n"}, {"value": 2})
    found = await documents.find("p", {"name": "n"})
    searched, _ = await documents.search("p", {"name": "n"})
    got = await documents.get("p", added["_id"])
    for record in (added, changed, got, *found, *searched):
        assert record is not None
        assert not {"embedding", "embedding_space"} & record.keys()
    raw = await backend.collection("documents").get(added["_id"])
    assert raw is not None
    assert bytes(raw["embedding"]) == bytes(meaning(1, 0.5).vector)
    assert raw["embedding_space"] == "s"


async def test_nobody_else_sets_an_embedding(documents: DocumentStore) -> None:
    fields = {"embedding": [1.0], "embedding_space": "s"}
    await documents.insert("p", {"name": "n", "value": 1, **fields})
    await documents.update("p", {"name": "n"}, {"value": 2, **fields})
    assert await nearest(documents, 1.0) == []


async def test_the_nearest_are_found_by_their_cosine(documents: DocumentStore) -> None:
    vectors = [(1, 0), (2, 2), (0, 1), (-1, 0), (0, 0), (10, 1)]
    for number, vector in enumerate(vectors):
        await documents.insert("p", {"name": "n", "value": number}, embedding=meaning(*vector))
    await documents.insert("p", {"name": "n", "value": 6})
    best = [(0, 1.0), (5, 0.995), (1, 0.707)]
    assert await nearest(documents, 3, 0) == best
    assert await nearest(documents, 3, 0, limit=2) == best[:2]
    assert await nearest(documents, 3, 0, at_least=0.9) == best[:2]
    assert await nearest(documents, 3, 0, at_least=-1, limit=10) == [
        *best, (4, 0.0), (2, 0.0), (3, -1.0),
    ]  # fmt: skip
    assert await nearest(documents, 3, 0, pool=2) == [(5, 0.995)]
    assert await nearest(documents, 3, 0, pool=2, sort=[("value", 1)]) == [(0, 1.0), (1, 0.707)]
    assert await nearest(documents, 0, 0) == []


async def test_only_vectors_of_one_kind_are_compared(documents: DocumentStore) -> None:
    for number, embedding in enumerate((meaning(1), meaning(1, 1), meaning(1, space="t"))):
        await documents.insert("p", {"name": "n", "value": number}, embedding=embedding)
    assert await nearest(documents, 1.0, at_least=-1) == [(0, 1.0)]
    assert await nearest(documents, 1.0, 1.0, at_least=-1) == [(1, 1.0)]


async def test_only_documents_of_the_project_that_match_are_compared(
    documents: DocumentStore,
) -> None:
    for project, name in (("p", "n"), ("p", "m"), ("q", "n")):
        await documents.insert(
            project, {"name": name, "value": f"{project}{name}"}, embedding=meaning(1)
        )
    assert await nearest(documents, 1.0) == [("pn", 1.0)]
    assert await nearest(documents, 1.0, project="q", query={}) == [("qn", 1.0)]
    query: Any = {"value": {"$regex": "m$"}}
    assert await nearest(documents, 1.0, query=query) == [("pm", 1.0)]
    assert await nearest(documents, 1.0, query={"project": "q"}) == []
    query = {"$or": [{"project": "q"}, {"name": "m"}]}
    assert await nearest(documents, 1.0, query=query) == [("pm", 1.0)]


async def test_a_pool_of_many_pages_is_looked_through(documents: DocumentStore) -> None:
    items = [UpsertItem(n, fields={"name": "n"}, embedding=meaning(1, n % 7)) for n in range(1_203)]
    await documents.write(await documents.plan("p", items))
    for sort in ((), (("value", -1),)):
        found = await nearest(documents, 1, 0, pool=10_000, limit=200, sort=sort)
        assert sorted(value for value, score in found if score == 1.0) == [*range(0, 1_203, 7)]


async def test_an_update_keeps_replaces_or_removes_an_embedding(documents: DocumentStore) -> None:
    await documents.insert("p", {"name": "n", "value": 0}, embedding=meaning(1, 0))
    await documents.update("p", {"name": "n"}, {"value": 1})
    assert await nearest(documents, 1, 0) == [(1, 1.0)]
    await documents.update("p", {"name": "n"}, {"value": 2}, embedding=meaning(0, 1), embeds=True)
    assert await nearest(documents, 1, 0) == []
    assert await nearest(documents, 0, 1) == [(2, 1.0)]
    await documents.update("p", {"name": "n"}, {"value": 3}, embeds=True)
    assert await nearest(documents, 0, 1, at_least=-1) == []
    await documents.update(
        "p", {"name": "m"}, {"value": 4}, insert={}, embedding=meaning(1, 0), embeds=True
    )
    await documents.update("p", {"name": "o"}, {"value": 5}, insert={}, embeds=True)
    assert await nearest(documents, 1, 0, query={}) == [(4, 1.0)]


# Many at once ----------------------------------------------------------------------------------


async def test_many_are_decided_on_together_and_written_once(documents: DocumentStore) -> None:
    old = await documents.insert("p", {"name": "n", "value": 0, "metadata": {"k": 0, "m": 1}})
    foreign = await documents.insert("q", {"name": "n", "value": 0, "metadata": {"k": 1}})
    items = [
        UpsertItem(n, {"k": n % 2, "n": n}, {"title": f"{n}"}, {"metadata.k": n % 2})
        for n in range(5)
    ]
    batch = await documents.plan("p", items, name="n")
    for _ in range(2):  # as after an answer that was lost
        written = await documents.write(batch)
        assert [record["value"] for record in written] == [4, 3]
    assert written[0]["_id"] == old["_id"]
    assert written[0]["metadata"] == {"k": 0, "m": 1, "n": 4}
    assert written[1]["metadata"] == {"k": 1, "n": 3}
    assert [record["title"] for record in written] == ["4", "3"]
    found = await documents.find("p", {}, sort=[("_id", 1)])
    assert found == [written[0], written[1]]
    assert await documents.get("q", foreign["_id"]) == foreign


async def test_a_document_removed_meanwhile_is_not_written(documents: DocumentStore) -> None:
    await documents.insert("p", {"name": "n", "value": 0})
    items = [UpsertItem(1, match={}), UpsertItem(2)]
    batch = await documents.plan("p", items, name="n")
    await documents.delete("p", {"value": 0})
    assert [record["value"] for record in await documents.write(batch)] == [2]


async def test_a_reserved_id_is_written_over_in_its_own_project_only(
    documents: DocumentStore,
) -> None:
    for value in (1, 2):
        items = [UpsertItem(value, fields={"name": "thread"}, id="f" * 24)]
        [written] = await documents.write(await documents.plan("p", items))
    assert await documents.find("p", {}) == [written]
    assert (written["_id"], written["value"]) == ("f" * 24, 2)
    batch = await documents.plan("q", items)
    with pytest.raises(Duplicate):
        await documents.write(batch)
    assert await documents.find("q", {}) == []


# Upserts in a race -----------------------------------------------------------------------------


async def test_upserts_at_once_add_one_document(place: Place, documents: DocumentStore) -> None:
    async def upsert(store: DocumentStore, number: int) -> Any:
        query = {"name": "n", "metadata.k": 1}
        return await store.update("p", query, {"value": number}, insert={})

    async with open_place(place) as second:
        stores = [documents, DocumentStore(second, make_mint())]
        written = await asyncio.gather(*(upsert(stores[n % 2], n) for n in range(8)))
    rows = await documents.find("p", {})
    assert len(rows) == 1
    assert {row["_id"] for row in written} == {rows[0]["_id"]}


async def test_a_claim_left_by_a_dead_process_is_cleared(
    documents: DocumentStore, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machina.store.document_claims.EXPIRY", timedelta(seconds=-1))
    monkeypatch.setattr("machina.store.document_claims._claim_of", lambda _: "left")
    await backend.collection("claims").insert({"_id": "left", "taken": await backend.now()})
    added = await documents.update("p", {"name": "n"}, {"value": 1}, insert={})
    assert added is not None
    if not backend.collection("documents").upserts_once:
        assert await backend.collection("claims").get("left") is None
