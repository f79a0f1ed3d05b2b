"""Careful changes when others write the same records between the reading and the writing."""

from __future__ import annotations

from typing import Any

import pytest

from machina.errors import StoreDown
from machina.store import mongo_changes, mongo_connection, mongo_scans
from machina.store.base import Backend, Collection, Duplicate, QueryRefused
from machina.store.mongo import open_mongo
from tests.mongo_replies import Command, MongoReplies, cursor, failure

Document = dict[str, Any]


class Meddler:
    """A lenient server with one record, which it changes before some of the writes it gets."""

    def __init__(self, record: Document | None) -> None:
        self.record = record
        self.changes: list[Document | None] = []
        """What the record is made by others, one before each write; then they leave it alone."""
        self.written: list[Document] = []

    def answer(self, command: Command) -> Document:
        if command.get("find") == "machina_probes":
            return failure(238)
        if "find" in command:
            return cursor() if self.record is None else cursor(self.record)
        if "update" in command or "delete" in command:
            return self._write(command)
        return {}

    def _write(self, command: Command) -> Document:
        if self.changes:
            self.record = self.changes.pop(0)
        ((change,),) = (command[name] for name in ("updates", "deletes") if name in command)
        named: Document = change["q"]
        if self.record is None or self.record["%v"] != named["%v"]:
            return {"n": 0, "nModified": 0}
        self.record = change.get("u")
        self.written += [] if self.record is None else [self.record]
        return {"n": 1, "nModified": 1}


@pytest.fixture
def leases(backend: Backend) -> Collection:
    return backend.collection("leases")


def meddle(server: MongoReplies, record: Document | None, *changes: Document | None) -> Meddler:
    meddler = Meddler(record)
    meddler.changes = [*changes]
    server.answer = meddler.answer
    return meddler


async def test_a_change_begins_again_from_what_the_other_wrote(
    server: MongoReplies, leases: Collection
) -> None:
    meddler = meddle(server, {"_id": "x", "n": 1, "%v": 1}, {"_id": "x", "n": 10, "%v": 2})
    changed = await leases.find_and_update({"_id": "x"}, {"$inc": {"n": 1}})
    assert changed == {"_id": "x", "n": 11}
    assert meddler.written == [{"_id": "x", "n": 11, "%v": 3}]


async def test_a_change_ends_when_the_other_took_the_record_away(
    server: MongoReplies, leases: Collection
) -> None:
    meddler = meddle(server, {"_id": "x", "n": 1, "%v": 1}, {"_id": "x", "n": 0, "%v": 2})
    assert await leases.find_and_update({"_id": "x", "n": {"$gt": 0}}, {"$inc": {"n": 1}}) is None
    assert meddler.written == []


async def test_a_change_of_many_looks_again_at_each_that_was_written(
    server: MongoReplies, leases: Collection
) -> None:
    first, again = {"_id": "x", "n": 1, "%v": 1}, {"_id": "x", "n": 5, "%v": 2}
    meddler = meddle(server, first, again, {"_id": "x", "n": 6, "%v": 3})
    assert await leases.update_many({"n": {"$gt": 0}}, {"$inc": {"n": 1}}) == 1
    assert meddler.written == [{"_id": "x", "n": 7, "%v": 4}]
    meddler = meddle(server, first, None)
    assert await leases.update_many({"n": {"$gt": 0}}, {"$inc": {"n": 1}}) == 1
    assert meddler.written == []


async def test_a_removal_looks_again_at_each_that_was_written(
    server: MongoReplies, leases: Collection
) -> None:
    first = {"_id": "x", "n": 1, "%v": 1}
    meddle(server, first, {"_id": "x", "n": 2, "%v": 2})
    assert await leases.delete({"n": {"$gt": 0}}) == 1
    meddle(server, first, {"_id": "x", "n": 0, "%v": 2})
    assert await leases.delete({"n": {"$gt": 0}}) == 0
    meddle(server, first, None)
    assert await leases.delete({"n": {"$gt": 0}}) == 0


async def test_who_is_always_overtaken_gives_up_after_a_while(
    server: MongoReplies, leases: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_changes, "PATIENCE_SECONDS", 0.2)
    meddle(server, {"_id": "x", "%v": 0}, *({"_id": "x", "%v": n} for n in range(1, 10_000)))
    with pytest.raises(StoreDown, match="kept writing"):
        await leases.find_and_update({"_id": "x"}, {"$set": {"n": 1}})


async def test_a_change_of_very_many_records_is_refused_before_the_first(
    server: MongoReplies, leases: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_changes, "MAX_MANY", 2)
    records = [{"_id": f"{n}", "n": 1, "%v": 1} for n in range(3)]
    server.answer = lambda c: (
        failure(238) if c.get("find") == "machina_probes" else cursor(*records)
    )
    with pytest.raises(QueryRefused, match="at most 2 records"):
        await leases.update_many({"n": 1}, {"$set": {"n": 2}})
    assert server.sent("update") == []


async def test_records_that_would_meet_another_one_are_left_as_they_are(
    server: MongoReplies,
) -> None:
    held = [
        {"_id": "1", "project": "p", "name": "a", "n": 1, "%v": 1},
        {"_id": "2", "project": "p", "name": "b", "n": 2, "%v": 1},
    ]

    def answer(command: Command) -> Document:
        asked = str(command.get("filter"))
        named = [record for record in held if repr(record["name"]) in asked]
        found = named if "name" in asked else held
        return failure(238) if command.get("find") == "machina_probes" else cursor(*found)

    server.answer = answer
    async with open_mongo(server.url) as backend:
        agents = backend.collection("agents")
        with pytest.raises(Duplicate, match="project and name"):
            await agents.update_many({"n": 1}, {"$set": {"name": "b"}})
        with pytest.raises(Duplicate, match="project and name"):
            await agents.update_many({}, {"$set": {"name": "c"}})
        assert server.sent("update") == []
        server.answer = lambda c: {"n": 1, "nModified": 1} if "update" in c else answer(c)
        assert await agents.update_many({"n": 1}, {"$set": {"name": "c"}}) == 1


async def test_a_search_that_takes_too_much_of_this_process_is_refused(
    server: MongoReplies, leases: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mongo_scans, "MAX_SCAN_SECONDS", 0.0)
    meddle(server, {"_id": "x", "text": "a" * 1_000, "%v": 1})
    for search in (leases.find({"text": {"$regex": "b"}}), leases.count({"text": "b"})):
        with pytest.raises(QueryRefused, match="narrow it down"):
            await search
    server.answer = lambda c: failure(238 if c["find"] == "machina_probes" else 50)
    with pytest.raises(QueryRefused, match="narrow it down"):
        await leases.find({"text": "b"})


async def test_a_search_that_has_found_enough_stops_reading(
    server: MongoReplies, leases: Collection
) -> None:
    first = cursor(*({"_id": f"{n}", "text": "ab", "%v": 1} for n in range(500)))
    first["cursor"]["id"] = 7
    server.answer = lambda c: first if c.get("find") == "leases" else {}
    found = await leases.find({"text": {"$regex": "a.?"}}, skip=1, limit=2)
    assert [record["_id"] for record in found] == ["1", "2"]
    assert [command["cursors"] for command in server.sent("killCursors")] == [[7]]
    assert server.sent("getMore") == []


async def test_a_call_that_is_not_answered_in_time_is_given_up(
    server: MongoReplies, leases: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leases.get("x")
    monkeypatch.setattr(mongo_connection, "CALL_SECONDS", 0.1)
    server.delay = 0.5
    with pytest.raises(StoreDown, match=r"within 0\.1 s"):
        await leases.get("x")
    server.delay = 0.0
    monkeypatch.undo()
    assert await leases.get("x") is None
