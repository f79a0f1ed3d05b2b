"""Vectors as bytes, and what a server with a vector index is asked."""

from __future__ import annotations

import math
from typing import Any

import bson
import pytest
from bson.binary import Binary

from machina.errors import Invalid
from machina.ids import make_mint
from machina.store.base import Backend
from machina.store.documents import DocumentStore
from machina.store.mongo_vectors import cosine_of
from machina.store.vectors import MAX_DIMENSION, Embedding, pack, similarities, unpack
from tests.mongo_replies import Command, MongoReplies, cursor, failure

NUMBERS = [1.0, -2.5, 0.0]


@pytest.fixture
def documents(backend: Backend) -> DocumentStore:
    return DocumentStore(backend, make_mint(), vector_index="by_meaning")


def test_numbers_are_packed_as_mongodb_packs_them() -> None:
    packed = pack(NUMBERS)
    assert bytes(packed) == b"\x27\x00" + bytes.fromhex("0000803f 000020c0 00000000")
    assert unpack(packed) == NUMBERS
    with_driver = Binary(bytes(packed), 9)
    assert with_driver.as_vector().data == NUMBERS


@pytest.mark.parametrize(
    "numbers", [[], [math.nan], [math.inf], [1e300], [0.0] * (MAX_DIMENSION + 1)]
)
def test_what_is_no_embedding_is_refused(numbers: list[float]) -> None:
    with pytest.raises(Invalid, match="finite numbers"):
        Embedding.of("s", numbers)


def test_vectors_are_compared_by_their_cosine() -> None:
    vectors = [pack(v) for v in ([3, 0], [0, 2], [-1, 0], [1, 1], [0, 0])]
    found = similarities(vectors, pack([1, 0]))
    assert [round(score, 6) for score in found] == [1, 0, -1, 0.707107, 0]
    assert similarities(vectors, pack([0, 0])) == [0] * 5
    assert similarities([], pack([1])) == []
    tiny, huge = pack([1e-30, 0]), pack([1e30, 0])
    assert similarities([tiny, huge], pack([1, 0])) == pytest.approx([1, 1])


# MongoDB ---------------------------------------------------------------------------------------


async def test_a_vector_is_stored_as_mongodbs_own_type(
    server: MongoReplies, documents: DocumentStore
) -> None:
    await documents.insert("p", {"name": "n"}, embedding=Embedding.of("s", NUMBERS))
    (insert,) = (command for command in server.sent("insert") if command["insert"] == "documents")
    stored = insert["documents"][0]["embedding"]
    assert isinstance(stored, Binary)
    assert stored.subtype == 9
    assert stored.as_vector().data == NUMBERS
    assert insert["documents"][0]["embedding_space"] == "s"


def answer_with(server: MongoReplies, aggregate: dict[str, Any], *rows: dict[str, Any]) -> None:
    def answer(command: Command) -> dict[str, Any]:
        match command:
            case {"aggregate": "documents"}:
                return aggregate
            case {"find": "documents"}:
                return cursor(*rows)
        return {}

    server.answer = answer


ROWS = [
    {"_id": id, "project": "p", "name": "n", "value": id, "%v": 1,
     "embedding": Binary(bytes(pack(NUMBERS)), 9), "embedding_space": "s"}
    for id in ("a", "b")
]  # fmt: skip


async def test_an_index_is_asked_in_one_command_with_the_project_inside(
    server: MongoReplies, documents: DocumentStore
) -> None:
    answer_with(server, cursor({"_id": "b", "score": 0.75}, {"_id": "a", "score": 0.6}), *ROWS)
    query = {"name": "n", "metadata.lang": {"$in": ["de", "en"]}}
    found = await documents.nearest(
        "p", query, Embedding.of("s", NUMBERS), pool=50, at_least=0.3, limit=5
    )
    assert [(record["value"], score) for record, score in found] == [("b", 0.5)]
    (command,) = server.sent("aggregate")
    assert command["pipeline"] == [
        {
            "$vectorSearch": {
                "index": "by_meaning",
                "path": "embedding",
                "queryVector": NUMBERS,
                "numCandidates": 500,
                "limit": 50,
                "filter": {"$and": [{"name": {"$eq": "n"}}, {"project": {"$eq": "p"}}]},
            }
        },
        {
            "$match": {
                "$and": [
                    {
                        "$and": [
                            {"name": {"$eq": "n"}},
                            {"metadata.lang": {"$in": ["de", "en"]}},
                            {"project": {"$eq": "p"}},
                        ]
                    },
                    {"embedding_space": {"$eq": "s"}},
                ]
            }
        },
        {"$project": {"_id": 1, "score": {"$meta": "vectorSearchScore"}}},
    ]
    assert command["maxTimeMS"] == 5000
    fetched = [c["filter"] for c in server.sent("find") if c["find"] == "documents"]
    assert fetched == [{"$and": [{"_id": {"$in": ["b"]}}, {"project": {"$eq": "p"}}]}]


async def test_a_pool_asks_for_no_more_than_atlas_gives(
    server: MongoReplies, documents: DocumentStore
) -> None:
    answer_with(server, cursor())
    await documents.nearest("p", {}, Embedding.of("s", NUMBERS), pool=50_000, at_least=0, limit=5)
    (command,) = server.sent("aggregate")
    search = command["pipeline"][0]["$vectorSearch"]
    assert (search["limit"], search["numCandidates"]) == (10_000, 10_000)


@pytest.mark.parametrize("code", [31082, 40324, 6047401])
async def test_a_server_without_the_index_is_looked_through_instead(
    server: MongoReplies, documents: DocumentStore, code: int
) -> None:
    answer_with(server, failure(code), *ROWS)
    found = await documents.nearest(
        "p", {"name": "n"}, Embedding.of("s", NUMBERS), pool=50, at_least=0.3, limit=5
    )
    assert sorted((record["value"], round(score, 6)) for record, score in found) == [
        ("a", 1.0), ("b", 1.0),
    ]  # fmt: skip


async def test_a_query_that_the_server_cannot_decide_is_looked_through_instead(
    server: MongoReplies, documents: DocumentStore
) -> None:
    answer_with(server, cursor(), *ROWS)
    found = await documents.nearest(
        "p",
        {"value": {"$regex": "(a+)+"}},
        Embedding.of("s", NUMBERS),
        pool=50,
        at_least=0.3,
        limit=5,
    )
    assert [record["value"] for record, _ in found] == ["a"]
    assert server.sent("aggregate") == []


def test_atlas_scores_become_cosines() -> None:
    assert [cosine_of(score) for score in (1.0, 0.5, 0.0)] == [1.0, 0.0, -1.0]


async def test_an_upsert_that_inserts_takes_a_claim_first(
    server: MongoReplies, documents: DocumentStore
) -> None:
    stored = {"_id": "x", "project": "p", "name": "n", "value": 1, "%v": 1}

    def answer(command: Command) -> dict[str, Any]:
        if command.get("findAndModify") == "documents":
            return {"value": stored if command.get("upsert") else None}
        return {}

    server.answer = answer
    added = await documents.update("p", {"name": "n"}, {"value": 1}, insert={})
    assert added is not None
    names = [
        (next(iter(c)), c[next(iter(c))], c.get("upsert", False))
        for c in server.commands
        if c[next(iter(c))] in ("documents", "claims") and "createIndexes" not in c
    ]
    assert names == [
        ("findAndModify", "documents", False),
        ("insert", "claims", False),
        ("findAndModify", "documents", True),
        ("delete", "claims", False),
    ]
    claim = next(c for c in server.sent("insert") if c["insert"] == "claims")["documents"][0]
    assert bson.encode(claim)
    assert len(claim["_id"]) == 64
