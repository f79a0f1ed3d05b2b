"""What every backend of the store does alike; another joins by one line in store/backends.py."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from machina.errors import Invalid, StoreDown
from machina.store.base import Backend, Change, Collection, Duplicate, QueryRefused
from machina.store.indexes import COLLECTIONS
from tests.store.backends import CHILD_ENVIRONMENT, Place, open_place

NOW = datetime(2026, 1, 31, 8, 0, 0, 250_000, UTC)


@pytest.fixture
def documents(backend: Backend) -> Collection:
    return backend.collection("documents")


async def fill(collection: Collection, *records: dict[str, Any]) -> None:
    for number, record in enumerate(records):
        await collection.insert({"_id": f"{number:02}", **record})


async def ids(collection: Collection, query: Any, **how: Any) -> list[str]:
    return [record["_id"] for record in await collection.find(query, **how)]


# Records ---------------------------------------------------------------------------------------


async def test_a_record_comes_back_as_it_was_stored(documents: Collection) -> None:
    record = {
        "_id": "x",
        "name": "thread",
        "value": {
            "sport:competition": {"@id": "urn:x 1", "a.b": 1, "$ref": "#/c", "": 2, "ключ": "é"},
            "when": NOW,
            "$:date": {"$:date": "2026"},
            "bytes": b"\x00\xff",
            "list": [1, 2.5, None, True, "a\x00b", NOW, [], {}],
            "big": 2**53 + 1,
        },
    }
    await documents.insert(record)
    assert await documents.get("x") == record
    assert await documents.find({"name": "thread"}) == [record]
    assert [*(await documents.find({}))[0]["value"]] == [*record["value"]]


async def test_dates_are_kept_in_utc_to_the_millisecond(documents: Collection) -> None:
    naive = NOW.replace(tzinfo=None, microsecond=250_999)
    await documents.insert({"_id": "x", "created": naive})
    found = await documents.get("x")
    assert found is not None
    assert found["created"] == NOW
    assert found["created"].utcoffset() == timedelta(0)


async def test_an_absent_record_is_none(documents: Collection) -> None:
    assert await documents.get("x") is None
    assert await documents.get("\ud800") is None
    assert await documents.find({"_id": "x"}) == []


@pytest.mark.parametrize("id", [None, 5, "", "a\0b", "\ud800"])
async def test_an_id_is_text(documents: Collection, id: Any) -> None:
    with pytest.raises(Invalid):
        await documents.insert({"_id": id})
    with pytest.raises(Invalid):
        await documents.insert({})


async def test_a_record_with_a_key_that_is_no_text_is_refused(documents: Collection) -> None:
    for value in ({1: 1}, {"a\0": 1}, {"a": object()}):
        with pytest.raises(Invalid):
            await documents.insert({"_id": "x", "value": value})
    assert await documents.count({}) == 0


async def test_a_list_in_an_indexed_field_is_refused(documents: Collection) -> None:
    with pytest.raises(Invalid, match="'name'"):
        await documents.insert({"_id": "x", "name": ["a"]})
    await documents.insert({"_id": "x", "name": "a"})
    with pytest.raises(Invalid, match="'name'"):
        await documents.find_and_update({"_id": "x"}, {"$push": {"names": 1}, "$set": {"name": {}}})
    with pytest.raises(Invalid, match="64 bits"):
        await documents.insert({"_id": "y", "name": 2**63})
    assert await documents.find({}) == [{"_id": "x", "name": "a"}]


# Queries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["name", "value"])
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("b", ["01"]),
        ({"$eq": "b"}, ["01"]),
        ({"$ne": "b"}, ["00", "02", "03", "04", "05", "06"]),
        ({"$gt": 1}, ["03"]),
        ({"$gte": 1}, ["02", "03"]),
        ({"$lt": "b"}, ["00"]),
        ({"$lte": NOW}, ["04"]),
        ({"$gt": False}, ["05"]),
        ({"$in": ["a", 2, None]}, ["00", "03", "06"]),
        ({"$nin": ["a", 2, None]}, ["01", "02", "04", "05"]),
        ({"$exists": False}, ["06"]),
        (None, ["06"]),
        ({"$ne": None}, ["00", "01", "02", "03", "04", "05"]),
        ({"$regex": "^A$", "$options": "i"}, ["00"]),
        ({"$not": {"$gte": 1}}, ["00", "01", "04", "05", "06"]),
        ({"$size": 1}, []),
        ({"$all": ["a"]}, ["00"]),
        ({"$elemMatch": {"$eq": "a"}}, []),
        ({"$in": []}, []),
        ({"$nin": []}, ["00", "01", "02", "03", "04", "05", "06"]),
        ({"$gt": 0, "$lt": 2}, ["02"]),
        (1.0, ["02"]),
        (True, ["05"]),
    ],
)
async def test_every_operator_works_with_and_without_an_index(
    documents: Collection, field: str, condition: Any, expected: list[str]
) -> None:
    values = ["a", "b", 1, 2, NOW, True]
    await fill(documents, *({field: value} for value in values), {})
    assert await ids(documents, {field: condition}) == expected
    assert await documents.count({field: condition}) == len(expected)


async def test_logical_operators_combine_indexed_and_other_fields(documents: Collection) -> None:
    await fill(
        documents,
        {"project": "p", "name": "a", "value": {"n": 1}},
        {"project": "p", "name": "a", "value": {"n": 2}},
        {"project": "p", "name": "b", "value": {"n": 1}},
        {"project": "q", "name": "a", "value": {"n": 1}},
    )
    owned = {"project": "p"}
    assert await ids(documents, {"$and": [owned, {"name": "a", "value.n": 1}]}) == ["00"]
    assert await ids(documents, owned | {"$or": [{"name": "b"}, {"value.n": 2}]}) == ["01", "02"]
    assert await ids(documents, owned | {"$nor": [{"name": "b"}, {"value.n": 2}]}) == ["00"]
    assert await ids(documents, {"_id": "00", "name": "b"}) == []
    assert await ids(documents, {"_id": {"$in": ["00", "03", 5]}}) == ["00", "03"]
    assert await ids(documents, {"_id": {"$gt": "01", "$lte": "03"}}) == ["02", "03"]
    assert await ids(documents, {"_id": {"$nin": ["00"]}, "name": "a"}) == ["01", "03"]
    assert await ids(documents, {"_id": 5}) == []


async def test_lists_and_objects_are_searched_by_path(documents: Collection) -> None:
    await fill(
        documents,
        {"value": [{"sport:x": {"@id": "1"}, "n": 1}, {"n": 5}]},
        {"value": {"sport:x": {"@id": "1"}, "tags": ["a", "b"]}},
        {"metadata": {"language": "de", "nothing": None}},
    )
    assert await ids(documents, {"value.sport:x.@id": "1"}) == ["00", "01"]
    assert await ids(documents, {"value": {"$elemMatch": {"n": {"$gt": 1, "$lt": 9}}}}) == ["00"]
    assert await ids(documents, {"value.tags": {"$all": ["a", "b"]}}) == ["01"]
    assert await ids(documents, {"value.tags": {"$size": 2}}) == ["01"]
    assert await ids(documents, {"value.1.n": 5}) == ["00"]
    assert await ids(documents, {"metadata": {"language": "de", "nothing": None}}) == ["02"]
    assert await ids(documents, {"metadata.nothing": {"$exists": True}}) == ["02"]


async def test_sort_skip_limit_and_projection(documents: Collection) -> None:
    await fill(
        documents,
        {"name": "b", "value": {"n": 1}},
        {"name": "a", "value": {"n": 3}},
        {"name": "c", "value": {"n": 2}},
        {"value": {"n": 2}},
    )
    assert await ids(documents, {}) == ["00", "01", "02", "03"]
    assert await ids(documents, {}, sort=[("_id", -1)], limit=2) == ["03", "02"]
    assert await ids(documents, {}, sort=[("name", 1)]) == ["03", "01", "00", "02"]
    assert await ids(documents, {}, sort=[("value.n", 1)]) == ["00", "02", "03", "01"]
    assert await ids(documents, {}, sort=[("value.n", -1), ("_id", 1)]) == ["01", "02", "03", "00"]
    assert await ids(documents, {}, sort=[("value.n", 1)], skip=1, limit=2) == ["02", "03"]
    assert await ids(documents, {"value.n": 2}, skip=1, limit=5) == ["03"]
    assert await ids(documents, {}, skip=3) == ["03"]
    assert await ids(documents, {}, limit=0) == []
    assert await ids(documents, {}, skip=9) == []
    assert await documents.find({"_id": "01"}, fields=["value.n"]) == [
        {"_id": "01", "value": {"n": 3}}
    ]


async def test_values_of_different_types_sort_alike_with_and_without_an_index(
    documents: Collection,
) -> None:
    values = [NOW, True, "b", 2, None, False, "a", 1.5, NOW - timedelta(days=1)]
    await fill(documents, *({"name": value, "value": value} for value in values))
    ascending = ["04", "07", "03", "06", "02", "05", "01", "08", "00"]
    for field in ("name", "value"):
        assert await ids(documents, {}, sort=[(field, 1)]) == ascending
        assert await ids(documents, {}, sort=[(field, -1)]) == ascending[::-1]


@pytest.mark.parametrize(
    "query",
    [
        {"$where": "sleep(1)"},
        {"value": {"$function": {"body": "x"}}},
        {"$and": [{"$or": [{"value": {"$expr": 1}}]}]},
        {"name": {"$regex": "x" * 257}},
        {"name": {"$in": [*range(10_001)]}},
    ],
)
async def test_a_query_outside_the_language_is_refused_everywhere(
    documents: Collection, query: Any
) -> None:
    for call in (
        documents.find(query),
        documents.count(query),
        documents.find_and_update(query, {"$set": {"a": 1}}),
        documents.update_many(query, {"$set": {"a": 1}}),
        documents.delete(query),
    ):
        with pytest.raises(QueryRefused):
            await call


async def test_a_sort_projection_or_page_outside_the_language_is_refused(
    documents: Collection,
) -> None:
    refused: list[dict[str, Any]] = [
        {"sort": [("$natural", 1)]},
        {"sort": [("name", 2)]},
        {"fields": ["$where"]},
        {"skip": -1},
        {"limit": -1},
        {"limit": 2**80},
    ]
    for how in refused:
        with pytest.raises(QueryRefused):
            await documents.find({}, **how)


# Changes ---------------------------------------------------------------------------------------


async def test_every_change_works_and_returns_the_record_as_stored(documents: Collection) -> None:
    await documents.insert({"_id": "x", "name": "a", "value": {"n": 1, "old": 1, "log": [1]}})
    after = await documents.find_and_update(
        {"_id": "x", "value.n": 1},
        {
            "$set": {"name": "b", "value.when": NOW.replace(microsecond=250_999), "value.t": (1,)},
            "$unset": {"value.old": ""},
            "$inc": {"value.n": 2},
            "$max": {"value.top": 7},
            "$push": {"value.log": {"$ref": 2}},
            "$setOnInsert": {"never": 1},
        },
    )
    assert after == {
        "_id": "x",
        "name": "b",
        "value": {"n": 3, "log": [1, {"$ref": 2}], "when": NOW, "t": [1], "top": 7},
    }
    assert await documents.get("x") == after
    assert await ids(documents, {"name": "b"}) == ["x"]
    assert await ids(documents, {"name": "a"}) == []


async def test_find_and_update_changes_the_first_in_order_only(documents: Collection) -> None:
    await fill(documents, {"name": "b"}, {"name": "a"}, {"name": "a"})
    change = {"$set": {"done": True}}
    first = await documents.find_and_update({}, change, sort=[("name", 1), ("_id", -1)])
    assert first is not None
    assert first["_id"] == "02"
    assert await ids(documents, {"done": True}) == ["02"]
    assert await documents.find_and_update({"name": "none"}, change) is None


async def test_an_upsert_inserts_once_and_updates_afterwards(documents: Collection) -> None:
    query = {"project": "p", "name": "a", "metadata.k": 1, "value": {"$ne": 9}}
    change: Change = {
        "$inc": {"n": 1},
        "$set": {"value": 1},
        "$setOnInsert": {"_id": "x", "first": True},
    }
    expected = {"_id": "x", "project": "p", "name": "a", "metadata": {"k": 1}, "first": True}
    assert await documents.find_and_update(query, change, upsert=True) == expected | {
        "n": 1, "value": 1,
    }  # fmt: skip
    again = await documents.find_and_update(query, change, upsert=True)
    assert again == expected | {"n": 2, "value": 1}
    assert await documents.count({}) == 1


async def test_update_many_and_delete_say_how_many_matched(documents: Collection) -> None:
    await fill(documents, *({"name": "a", "n": n} for n in range(5)), {"name": "b", "n": 0})
    assert await documents.update_many({"name": "a", "n": {"$gt": 1}}, {"$set": {"name": "c"}}) == 3
    assert await documents.count({"name": "c"}) == 3
    assert await documents.update_many({"name": "none"}, {"$set": {"n": 1}}) == 0
    assert await documents.delete({"name": {"$in": ["a", "b"]}}) == 3
    assert await documents.delete({"name": "a"}) == 0
    assert await ids(documents, {}) == ["02", "03", "04"]


async def test_a_refused_change_leaves_everything_as_it_was(documents: Collection) -> None:
    await fill(documents, {"n": 1}, {"n": "no number"}, {"n": 3})
    with pytest.raises(QueryRefused):
        await documents.update_many({}, {"$inc": {"n": 1}})
    assert [record["n"] for record in await documents.find({})] == [1, "no number", 3]
    with pytest.raises(QueryRefused):
        await documents.find_and_update({"_id": "00"}, {"$set": {"_id": "other"}})
    with pytest.raises(QueryRefused):
        await documents.find_and_update({"_id": "00"}, {"$rename": {"n": "m"}})


# Unique indexes --------------------------------------------------------------------------------


async def test_an_id_is_taken_once(documents: Collection) -> None:
    await documents.insert({"_id": "x", "n": 1})
    with pytest.raises(Duplicate):
        await documents.insert({"_id": "x", "n": 2})
    assert await documents.find({}) == [{"_id": "x", "n": 1}]


async def test_a_unique_index_refuses_inserts_and_changes(backend: Backend) -> None:
    prompts = backend.collection("prompts")
    await prompts.insert({"_id": "1", "project": "p", "name": "a"})
    await prompts.insert({"_id": "2", "project": "q", "name": "a"})
    await prompts.insert({"_id": "3", "project": "p", "name": "b"})
    with pytest.raises(Duplicate):
        await prompts.insert({"_id": "4", "project": "p", "name": "a"})
    with pytest.raises(Duplicate):
        await prompts.find_and_update({"_id": "3"}, {"$set": {"name": "a"}})
    with pytest.raises(Duplicate):
        await prompts.update_many({}, {"$set": {"project": "p", "name": "a"}})
    query, upsert = {"project": "p", "name": "a", "n": 1}, {"$setOnInsert": {"_id": "5"}}
    with pytest.raises(Duplicate):
        await prompts.find_and_update(query, upsert, upsert=True)
    names = [(r["project"], r["name"]) for r in await prompts.find({})]
    assert names == [("p", "a"), ("q", "a"), ("p", "b")]


async def test_a_unique_index_counts_only_records_that_have_its_fields(backend: Backend) -> None:
    runs = backend.collection("runs")
    for id in ("1", "2"):
        await runs.insert({"_id": id, "project": "p"})
    await runs.insert({"_id": "3", "project": "p", "idempotency": "k"})
    with pytest.raises(Duplicate):
        await runs.insert({"_id": "4", "project": "p", "idempotency": "k"})
    await runs.find_and_update({"_id": "3"}, {"$unset": {"idempotency": ""}})
    await runs.insert({"_id": "4", "project": "p", "idempotency": "k"})


async def test_every_declared_collection_exists(backend: Backend) -> None:
    for name in COLLECTIONS:
        assert await backend.collection(name).count({}) == 0


# At once ---------------------------------------------------------------------------------------


async def test_increments_are_never_lost_between_tasks(documents: Collection) -> None:
    await documents.insert({"_id": "x", "n": 0})

    async def increment() -> None:
        for _ in range(100):
            await documents.find_and_update({"_id": "x"}, {"$inc": {"n": 1}})

    await asyncio.gather(*(increment() for _ in range(8)))
    found = await documents.get("x")
    assert found is not None
    assert found["n"] == 800


async def test_exactly_one_of_many_claims_wins(backend: Backend) -> None:
    runs = backend.collection("runs")
    await runs.insert({"_id": "x", "status": "scheduled", "attempt": 0})

    async def claim(worker: int) -> bool:
        change: Change = {"$set": {"status": "running", "worker": worker}, "$inc": {"attempt": 1}}
        return await runs.find_and_update({"_id": "x", "status": "scheduled"}, change) is not None

    assert sum(await asyncio.gather(*(claim(worker) for worker in range(50)))) == 1
    found = await runs.get("x")
    assert found is not None
    assert found["attempt"] == 1


async def test_one_failing_call_harms_none_of_those_beside_it(documents: Collection) -> None:
    await documents.insert({"_id": "taken"})
    calls = [documents.insert({"_id": f"{n}" if n % 3 else "taken"}) for n in range(30)]
    calls += [documents.update_many({}, {"$inc": {"_id": 1}}) for _ in range(3)]  # type: ignore[misc]  # awaited alike
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, Duplicate) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, QueryRefused) for outcome in outcomes) == 3
    assert await documents.count({}) == 21


async def test_a_cancelled_call_leaves_the_store_usable(documents: Collection) -> None:
    tasks = [asyncio.create_task(documents.insert({"_id": f"{n}"})) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[10:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await documents.count({"_id": {"$in": [f"{n}" for n in range(10)]}}) == 10


INCREMENT = """
import asyncio
from machina.settings import load_settings
from machina.store import open_backend

async def main():
    async with open_backend(load_settings()) as backend:
        print("ready", flush=True)
        input()
        for _ in range(200):
            await backend.collection("documents").find_and_update({"_id": "x"}, {"$inc": {"n": 1}})

asyncio.run(main())
"""


async def test_increments_are_never_lost_between_processes(
    place: Place, documents: Collection
) -> None:
    await documents.insert({"_id": "x", "n": 0})
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", INCREMENT, env={**CHILD_ENVIRONMENT, **place.environment},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
    await asyncio.gather(*(child.communicate(b"\n") for child in children))
    assert [child.returncode for child in children] == [0, 0]
    found = await documents.get("x")
    assert found is not None
    assert found["n"] == 400


async def test_two_loops_in_two_threads_share_a_store(place: Place, documents: Collection) -> None:
    await documents.insert({"_id": "x", "n": 0})
    both = threading.Barrier(2, timeout=5)

    async def increment() -> None:
        async with open_place(place) as backend:
            await asyncio.to_thread(both.wait)
            for _ in range(100):
                await backend.collection("documents").find_and_update(
                    {"_id": "x"}, {"$inc": {"n": 1}}
                )

    thread = threading.Thread(target=asyncio.run, args=(increment(),))
    thread.start()
    await increment()
    await asyncio.to_thread(thread.join)
    found = await documents.get("x")
    assert found is not None
    assert found["n"] == 200


# Life ------------------------------------------------------------------------------------------


async def test_records_are_there_after_reopening(place: Place) -> None:
    async with open_place(place) as backend:
        await backend.collection("documents").insert({"_id": "x", "when": NOW})
    async with open_place(place) as backend:
        assert await backend.collection("documents").get("x") == {"_id": "x", "when": NOW}


async def test_the_stores_clock_is_now_in_utc_to_the_millisecond(backend: Backend) -> None:
    before = datetime.now(UTC)
    now = await backend.now()
    assert before - timedelta(milliseconds=1) < now < before + timedelta(seconds=5)
    assert now.microsecond % 1000 == 0
    assert now.utcoffset() == timedelta(0)


async def test_store_down_is_raised_when_the_store_does_not_answer(place: Place) -> None:
    async with place.unanswering() as backend:
        documents = backend.collection("documents")
        with pytest.raises(StoreDown):
            await documents.insert({"_id": "x"})
        with pytest.raises(StoreDown):
            await documents.find_and_update({"_id": "x"}, {"$set": {"a": 1}}, upsert=True)
        outcomes = await asyncio.gather(
            *(documents.insert({"_id": f"{n}"}) for n in range(5)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {StoreDown}


async def test_a_closed_store_is_down(place: Place) -> None:
    async with open_place(place) as backend:
        documents = backend.collection("documents")
    with pytest.raises(StoreDown):
        await documents.get("x")
    with pytest.raises(StoreDown):
        await documents.insert({"_id": "x"})
