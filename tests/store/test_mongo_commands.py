"""What a server is asked that means by queries what MongoDB does, and what its errors become."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from machina.errors import Invalid, StoreDown
from machina.store.base import Backend, Duplicate, QueryRefused
from machina.store.matching import compile_query
from machina.store.mongo import open_mongo
from machina.store.mongo_setup import PROBE_ORDER, PROBE_QUERY, PROBE_RECORDS
from machina.store.ordering import RecordOrder
from tests.mongo_replies import Command, MongoReplies, cursor, failure

NOW = datetime(2026, 1, 31, 8, 0, 0, 250_000, UTC)
CONFIRMED = {"w": "majority", "j": True, "wtimeout": 5000}


def answer_only(server: MongoReplies, name: str, *answers: dict[str, Any] | None) -> None:
    """Answers commands of one name in turn, the last answer again and again."""
    waiting = list(answers)

    def answer(command: Command) -> dict[str, Any] | None:
        if next(iter(command)) != name or command[name] == "machina_probes":
            return {}
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    server.answer = answer


# First contact ---------------------------------------------------------------------------------


async def test_nothing_is_asked_before_the_first_call(server: MongoReplies) -> None:
    async with open_mongo(server.url):
        await asyncio.sleep(0)
    assert server.commands == []


async def test_indexes_are_made_once_as_they_are_declared(
    server: MongoReplies, backend: Backend
) -> None:
    await asyncio.gather(*(backend.collection("agents").get("x") for _ in range(5)))
    made = {command["createIndexes"]: command["indexes"] for command in server.commands[1:-5]}
    assert made["agents"] == [
        {
            "key": {"project": 1, "name": 1},
            "name": "project_name_unique",
            "unique": True,
            "partialFilterExpression": {"project": {"$gte": ""}, "name": {"$gte": ""}},
        },
        {"key": {"updated": 1, "_id": 1}, "name": "updated"},
        {
            "key": {"project": 1, "_id": 1},
            "name": "project_first",
            "partialFilterExpression": {"project": {"$gte": ""}},
        },
    ]
    assert [list(index["key"]) for index in made["runs"]][:2] == [
        ["status", "wake_at", "queue_deadline", "_id"],
        ["status", "published", "_id"],
    ]
    assert [list(index["key"]) for index in made["runs"]][-1] == ["idempotency", "_id"]
    assert [list(index["key"]) for index in made["documents"]] == [
        ["project", "_id"],
        ["project", "name", "_id"],
    ]
    assert len(server.sent("createIndexes")) == len(made)
    assert [command["find"] for command in server.sent("find")] == ["machina_probes"] + 5 * [
        "agents"
    ]


def test_the_probe_asks_for_what_the_query_language_means() -> None:
    assert all(map(compile_query(PROBE_QUERY), PROBE_RECORDS))
    ordered = sorted(PROBE_RECORDS, key=RecordOrder(PROBE_ORDER))
    assert [record["_id"] for record in ordered] == ["2", "1"]


async def test_a_server_that_does_not_know_the_probes_gets_them_once(
    server: MongoReplies, backend: Backend
) -> None:
    known: list[str] = []

    def answer(command: Command) -> dict[str, Any]:
        if "insert" in command:
            known.extend(document["_id"] for document in command["documents"])
            if len(known) == 1:  # another process was faster
                return {"n": 0, "writeErrors": [{"index": 0, "code": 11000, "errmsg": "taken"}]}
        return {} if known or "find" not in command else cursor()

    server.answer = answer
    assert await backend.collection("agents").count({}) == 0
    assert known == ["1", "2"]
    assert len(server.sent("createIndexes")) > 5


@pytest.mark.parametrize(
    ("answer", "is_trusted"),
    [(failure(238), False), ({"ok": 0.0, "errmsg": "no $not here"}, False), (failure(18), None)],
)
async def test_a_server_that_refuses_the_probe_is_not_trusted(
    server: MongoReplies, backend: Backend, answer: dict[str, Any], is_trusted: bool | None
) -> None:
    server.answer = lambda c: answer if c.get("find") == "machina_probes" else {}
    changing = backend.collection("leases").find_and_update({"n": 1}, {"$set": {"n": 2}})
    if is_trusted is None:
        with pytest.raises(StoreDown, match="refuses the user"):
            await changing
    else:
        assert await changing is None
        assert bool(server.sent("findAndModify")) is is_trusted


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (85, "index on 'agents' with other options"),
        (86, "index on 'agents' with other options"),
        (11000, "project_name_unique on 'agents'.* same values"),
    ],
)
async def test_an_index_that_contradicts_is_named_until_it_is_gone(
    server: MongoReplies, backend: Backend, code: int, words: str
) -> None:
    server.answer = lambda c: failure(code) if c.get("createIndexes") == "agents" else {}
    for _ in range(2):
        with pytest.raises(StoreDown, match=words):
            await backend.collection("runs").get("x")
    server.answer = lambda _: {}
    assert await backend.collection("runs").get("x") is None


# One step --------------------------------------------------------------------------------------


async def test_a_change_is_one_command_that_finds_tests_and_changes(
    server: MongoReplies, backend: Backend
) -> None:
    stored = {"_id": "x", "status": "running", "attempt": 1, "a%2Eb": {"%24ref": NOW}, "%v": 4}
    answer_only(server, "findAndModify", {"value": stored})
    changed = await backend.collection("runs").find_and_update(
        {"_id": "x", "status": "scheduled", "started": None},
        {"$set": {"status": "running", "started": NOW}, "$inc": {"attempt": 1}},
    )
    assert changed == {"_id": "x", "status": "running", "attempt": 1, "a.b": {"$ref": NOW}}
    (command,) = server.sent("findAndModify")
    assert command["query"] == {
        "$and": [
            {"_id": {"$eq": "x"}},
            {"status": {"$eq": "scheduled"}},
            {"started": {"$eq": None}},
        ]
    }
    assert command["update"] == {
        "$inc": {"%v": 1, "attempt": 1},
        "$set": {"status": "running", "started": NOW.replace(tzinfo=None)},
    }
    assert command["new"] is True
    assert command["writeConcern"] == CONFIRMED
    assert command["maxTimeMS"] == 5000
    assert "sort" not in command
    assert len(server.sent("find")) == 1  # the probe


async def test_a_change_that_finds_nothing_is_not_looked_into(
    server: MongoReplies, backend: Backend
) -> None:
    change = {"$set": {"holder": "b"}}
    assert await backend.collection("leases").find_and_update({"beat": 3}, change) is None
    assert [next(iter(command)) for command in server.commands][-1] == "findAndModify"
    assert server.commands[-1]["sort"] == {"_id": 1}


async def test_an_upsert_is_one_command_too(server: MongoReplies, backend: Backend) -> None:
    answer_only(server, "findAndModify", {"value": {"_id": "i", "revision": 1, "%v": 1}})
    saved = await backend.collection("agents").find_and_update(
        {"project": "p", "name": "a"},
        {"$set": {"body": {"$x": 1}}, "$setOnInsert": {"_id": "i"}, "$inc": {"revision": 1}},
        upsert=True,
    )
    assert saved == {"_id": "i", "revision": 1}
    (command,) = server.sent("findAndModify")
    assert command["upsert"] is True
    assert command["update"]["$set"] == {"body": {"%24x": 1}}
    assert command["update"]["$setOnInsert"] == {"_id": "i"}


async def test_an_upsert_tries_again_when_another_one_was_faster(
    server: MongoReplies, backend: Backend
) -> None:
    leases, taken = backend.collection("leases"), failure(11000, keyPattern={"_id": 1})
    answer_only(server, "findAndModify", taken, taken, {"value": {"_id": "w", "beat": 2, "%v": 2}})
    change = {"$inc": {"beat": 1}}
    assert await leases.find_and_update({"_id": "w"}, change, upsert=True) == {
        "_id": "w",
        "beat": 2,
    }
    answer_only(server, "findAndModify", taken)
    with pytest.raises(Duplicate):
        await leases.find_and_update({"_id": "w"}, change, upsert=True)
    assert len(server.sent("findAndModify")) == 6
    with pytest.raises(Duplicate):
        await leases.find_and_update({"_id": "w"}, change)
    assert len(server.sent("findAndModify")) == 7


async def test_an_upsert_that_contradicts_itself_is_refused_when_it_would_insert(
    server: MongoReplies, backend: Backend
) -> None:
    query = {"_id": "w", "$and": [{"_id": "w"}]}
    with pytest.raises(QueryRefused, match="gives '_id' twice"):
        await backend.collection("leases").find_and_update(query, {"$inc": {"n": 1}}, upsert=True)
    assert server.sent("findAndModify") == server.sent("insert") == []


async def test_a_record_named_by_its_id_is_looked_up_and_tested_here(
    server: MongoReplies, backend: Backend
) -> None:
    answer_only(server, "find", cursor({"_id": "w", "n": 1, "%v": 1}))
    leases = backend.collection("leases")
    assert await leases.count({"_id": "w", "n": {"$lt": 2}}) == 1
    assert await leases.count({"_id": "w", "n": {"$gt": 2}}) == 0
    assert await leases.find({"_id": "w", "n": 1}, skip=1) == []
    assert {str(c["filter"]) for c in server.sent("find")[1:]} == {"{'_id': 'w'}"}


async def test_a_change_that_the_server_refuses_is_explained(
    server: MongoReplies, backend: Backend
) -> None:
    def answer(command: Command) -> dict[str, Any]:
        if "findAndModify" in command:
            return failure(14)
        if command.get("find") == "leases":
            return cursor({"_id": "w", "beat": "text", "%v": 1})
        return {}

    server.answer = answer
    with pytest.raises(QueryRefused, match=r"'\$inc' adds numbers, not 'text'"):
        await backend.collection("leases").find_and_update({"_id": "w"}, {"$inc": {"beat": 1}})


async def test_changes_of_many_are_one_command_when_none_can_refuse(
    server: MongoReplies, backend: Backend
) -> None:
    answer_only(server, "update", {"n": 7, "nModified": 3})
    runs = backend.collection("runs")
    assert await runs.update_many({"worker": "w"}, {"$set": {"status": "scheduled"}}) == 7
    answer_only(server, "delete", {"n": 2})
    assert await runs.delete({"worker": "w"}) == 2
    (update,), (delete,) = server.sent("update"), server.sent("delete")
    assert update["updates"][0]["multi"] is True
    assert update["updates"][0]["u"]["$inc"] == {"%v": 1}
    assert delete["deletes"] == [{"q": {"worker": {"$eq": "w"}}, "limit": 0}]


async def test_a_search_is_sorted_paged_and_limited_by_the_server(
    server: MongoReplies, backend: Backend
) -> None:
    answer_only(server, "find", cursor({"_id": "x", "value": {"a": 1, "b": 2}, "%v": 1}))
    documents = backend.collection("documents")
    query = {"project": "p", "value.sport:x.$id": {"$gt": 1, "$lte": 2}}
    found = await documents.find(
        query, sort=[("value.n.o", -1)], skip=5, limit=10, fields=["value.a", "name"]
    )
    assert found == [{"_id": "x", "value": {"a": 1}}]
    (command,) = (command for command in server.sent("find") if command["find"] == "documents")
    assert command["filter"] == {
        "$and": [{"project": {"$eq": "p"}}, {"value.sport:x.%24id": {"$gt": 1, "$lte": 2}}]
    }
    assert command["sort"] == {"value.n.o": -1, "_id": -1}
    assert (command["skip"], command["limit"], command["maxTimeMS"]) == (5, 10, 5000)
    assert set(command["projection"]) == {"value", "name", "%v"}
    answer_only(server, "aggregate", cursor({"n": 41}))
    assert await documents.count(query) == 41


async def test_a_regular_expression_is_searched_here_and_never_sent(
    server: MongoReplies, backend: Backend
) -> None:
    stored = [
        {"_id": f"{n}", "project": "p", "name": name, "%v": 1}
        for n, name in enumerate(("aab", "b", "ab"))
    ]
    answer_only(server, "find", cursor(*stored))
    documents = backend.collection("documents")
    query = {"project": "p", "name": {"$regex": "^(a+)+b$"}}
    assert [record["_id"] for record in await documents.find(query, skip=1)] == ["2"]
    assert await documents.count(query) == 2
    filters = [c["filter"] for c in server.sent("find") if c["find"] == "documents"]
    assert filters == [{"project": {"$eq": "p"}}] * 2
    await documents.find({"name": {"$regex": "^acme: x", "$options": "i"}})
    assert server.commands[-1]["filter"] == {"name": {"$regex": "^acme: x", "$options": "i"}}


# Errors ----------------------------------------------------------------------------------------


async def test_a_taken_key_is_a_duplicate_with_its_fields(
    server: MongoReplies, backend: Backend
) -> None:
    error = {"index": 0, "code": 11000, "errmsg": "E11000", "keyPattern": {"project": 1, "name": 1}}
    answer_only(server, "insert", {"n": 0, "writeErrors": [error]})
    with pytest.raises(Duplicate, match="project and name") as raised:
        await backend.collection("agents").insert({"_id": "x", "project": "p", "name": "a"})
    assert raised.value.details == {"fields": ["project", "name"]}
    assert raised.value.field == "name"


async def test_a_record_that_the_server_does_not_take_is_invalid(
    server: MongoReplies, backend: Backend
) -> None:
    error = {"index": 0, "code": 15, "errmsg": "too deep"}
    answer_only(server, "insert", {"n": 0, "writeErrors": [error]})
    with pytest.raises(Invalid, match="does not take this record"):
        await backend.collection("agents").insert({"_id": "x"})
    with pytest.raises(Invalid, match="cannot keep this record"):
        await backend.collection("agents").insert({"_id": "x", "body": "x" * 17_000_000})


async def test_a_search_that_takes_too_long_is_the_callers_fault_unless_it_is_indexed(
    server: MongoReplies, backend: Backend
) -> None:
    reads = ("find", "aggregate")
    server.answer = lambda c: failure(50) if "documents" in map(c.get, reads) else {}
    documents = backend.collection("documents")
    for slow in (documents.find({"value.n": 1}), documents.count({"value.n": 1})):
        with pytest.raises(QueryRefused, match="narrow it down"):
            await slow
    for slow in (documents.find({"project": "p"}), documents.count({"project": "p"})):
        with pytest.raises(StoreDown, match="took too long"):
            await slow


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (failure(10107), "primary is changing"),
        (failure(11600), "primary is changing"),
        (failure(13), "refuses the user"),
        (failure(18), "refuses the user"),
        (failure(112), "code 112"),
        (failure(2), "code 2"),
        ({"ok": 0.0, "errmsg": "database is locked"}, "OperationFailure"),
        (None, "connection broke"),
    ],
)
async def test_every_other_failure_is_the_store_being_down(
    server: MongoReplies, backend: Backend, answer: dict[str, Any] | None, words: str
) -> None:
    answer_only(server, "find", answer)
    with pytest.raises(StoreDown, match=words) as raised:
        await backend.collection("documents").find({"project": "p"})
    assert "127.0.0.1" not in raised.value.message


async def test_a_write_that_too_few_confirmed_is_the_store_being_down(
    server: MongoReplies, backend: Backend
) -> None:
    doubt = {"code": 64, "errmsg": "waiting timed out", "errInfo": {"wtimeout": True}}
    answer_only(server, "insert", {"n": 1, "writeConcernError": doubt})
    with pytest.raises(StoreDown, match="confirmed"):
        await backend.collection("leases").insert({"_id": "x"})


async def test_contact_is_made_anew_after_a_broken_connection(
    server: MongoReplies, backend: Backend
) -> None:
    leases = backend.collection("leases")
    await leases.get("x")
    before = len(server.sent("createIndexes"))
    answer_only(server, "insert", None)
    with pytest.raises(StoreDown):
        await leases.insert({"_id": "x"})
    assert await leases.get("x") is None
    assert len(server.sent("createIndexes")) == 2 * before


# The clock -------------------------------------------------------------------------------------


async def test_the_clock_is_the_servers_and_is_not_asked_each_time(
    server: MongoReplies, backend: Backend
) -> None:
    server.ahead = timedelta(hours=1)
    for _ in range(50):
        ahead = await backend.now() - datetime.now(UTC)
        assert timedelta(minutes=59, seconds=59) < ahead < timedelta(hours=1, seconds=1)
    assert 1 <= server.greetings <= 3
