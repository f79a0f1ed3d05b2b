"""A MongoDB that is not there yet, goes away, stands still and comes back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from machina.errors import SettingsInvalid, StoreDown
from machina.settings import load_settings
from machina.store import open_backend, open_store
from machina.store.base import Backend, Collection, Duplicate
from machina.store.indexes import COLLECTIONS
from machina.store.mongo import open_mongo
from machina.store.mongo_collection import MongoBackend
from machina.store.mongo_connection import CALLS_AT_ONCE, Connection, connect
from tests.mongo_replies import MongoReplies
from tests.mongo_server import MongoServer, empty, shared_server
from tests.services import off_loop


@pytest.fixture
def own_mongo() -> Iterator[MongoServer]:
    """A server of the test's own, to be killed, frozen and restarted."""
    server = MongoServer()
    yield server
    server.close()


@pytest.fixture
def url() -> str:
    """An empty database of the shared server."""
    return empty(shared_server().url)


@asynccontextmanager
async def trusting_backend(url: str) -> AsyncIterator[Backend]:
    """A backend that takes any server for MongoDB."""

    async def trust(_: Any) -> bool:
        return True

    client = await asyncio.to_thread(connect, url, asyncio.get_running_loop())
    connection = Connection(client, probe=trust)
    try:
        yield MongoBackend(connection)
    finally:
        await connection.close()


# Opening ---------------------------------------------------------------------------------------


async def test_a_process_starts_without_the_server_and_works_once_it_is_there(
    own_mongo: MongoServer,
) -> None:
    own_mongo.kill()
    async with open_mongo(own_mongo.url, selection_seconds=1.0) as backend:
        keys = backend.collection("keys")
        early = await asyncio.gather(
            backend.now(), keys.insert({"_id": "x"}), return_exceptions=True
        )
        assert [type(outcome) for outcome in early] == [StoreDown] * 2
        await off_loop(own_mongo.start)
        await keys.insert({"_id": "x", "prefix": "p"})
        with pytest.raises(Duplicate):  # so the indexes are there as well
            await keys.insert({"_id": "y", "prefix": "p"})
        assert abs(await backend.now() - datetime.now(UTC)) < timedelta(seconds=1)


async def test_several_that_begin_at_once_make_the_same_indexes(url: str) -> None:
    async def begin() -> None:
        async with open_mongo(url) as backend:
            assert await backend.collection("agents").count({}) == 0

    await asyncio.gather(*(begin() for _ in range(4)))
    with closing(MongoClient[dict[str, Any]](url)) as client:
        made = await asyncio.to_thread(lambda: list(client.machina.runs.list_indexes()))
    assert len(made) == 1 + len(COLLECTIONS["runs"])


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://user:p@ss:word@host/machina",
        "mongodb://user:secret@host:port/machina",
        "mongodb://user:secret@/machina",
        "mongodb://user:secret@host/machina?w=much&tls=maybe",
    ],
)
def test_an_address_that_is_none_is_named_without_its_password(url: str) -> None:
    settings = load_settings(mongodb_url=url)

    async def open_it() -> None:
        async with open_backend(settings):
            pass

    with pytest.raises(SettingsInvalid, match=r"MONGODB_URL=mongodb://user:\*\*\*@") as raised:
        asyncio.run(open_it())
    assert "secret" not in raised.value.message
    assert "p@ss" not in raised.value.message


async def test_options_in_the_address_decide_about_confirmation_but_not_whom_to_read(
    url: str,
) -> None:
    loop = asyncio.get_running_loop()
    plain = await asyncio.to_thread(connect, url, loop)
    told = await asyncio.to_thread(
        connect, f"{url}?w=1&readPreference=secondary&serverSelectionTimeoutMS=99", loop
    )
    try:
        assert plain.write_concern.document == {"w": "majority", "j": True, "wtimeout": 5000}
        assert told.write_concern.document == {"w": 1, "j": True, "wtimeout": 5000}
        assert told.read_preference.mongos_mode == "primary"
        assert told.options.server_selection_timeout == 3
        assert (told.options.pool_options.max_pool_size, told.options.retry_writes) == (16, True)
    finally:
        plain.close()
        told.close()


def test_a_process_on_the_embedded_store_does_not_load_the_driver() -> None:
    script = "import sys, machina.store; assert not {'motor', 'pymongo', 'bson'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_the_stores_of_a_deployment_work_on_it(url: str) -> None:
    settings = await asyncio.to_thread(lambda: load_settings(mongodb_url=url))
    async with open_store(settings) as store:
        body = {"name": "sport:Event", "tasks": [{"$ref": "#/a.b", "a.b": {"%v": 1}}]}
        id, is_new = await store.definitions.save("p", "workflow", body)
        again = await store.definitions.save("p", "workflow", body)
        assert (is_new, again) == (True, (id, False))
        found = await store.definitions.get("p", "workflow", "sport:Event")
        assert found is not None
        assert {name: found[name] for name in body} == body
        document = await store.documents.insert("p", {"name": "n", "value": {"a b": [{"@id": 1}]}})
        query = {"value.a b.@id": {"$in": [1, 2]}, "created": {"$lte": "2100-01-01"}}
        assert await store.documents.search("p", query) == ([document], 1)
        await store.leases.register("w", {"host": "h"})
        assert await store.leases.renew("w")
        assert await store.leases.elect("reaper", "w", silent_seconds=1)
        (lease,) = await store.leases.workers()
        assert (lease.worker, lease.beat) == ("w", 2)
        assert await store.leases.bury("w", 2)
        assert not await store.leases.renew("w")


# One step on a server that does it --------------------------------------------------------------


async def test_changes_in_one_step_agree_with_careful_ones(url: str) -> None:
    async with trusting_backend(url) as one, open_mongo(url) as other:
        trusted, careful = one.collection("leases"), other.collection("leases")
        query = {"kind": "role", "holder": "a"}
        await trusted.insert({"_id": "1", **query, "n": 1})
        await careful.insert({"_id": "2", "kind": "role", "holder": "b"})
        for leases in (trusted, careful, trusted):
            changed = await leases.find_and_update(query, {"$inc": {"n": 1}, "$set": {"t": "x"}})
        assert changed == {"_id": "1", **query, "n": 4, "t": "x"}
        for leases in (trusted, careful):
            assert await leases.find({"kind": "role"}, sort=[("holder", -1)], limit=1) == [
                {"_id": "2", "kind": "role", "holder": "b"}
            ]
            assert await leases.count({"kind": "role"}) == 2
        assert await trusted.update_many({"holder": "a"}, {"$set": {"t": "y"}}) == 1
        assert await careful.find({"t": "y"}) == [{"_id": "1", **query, "n": 4, "t": "y"}]
        assert await trusted.delete({"holder": {"$in": ["a", "b"]}}) == 2


async def test_a_change_in_one_step_makes_a_careful_one_begin_again(url: str) -> None:
    async with trusting_backend(url) as one, open_mongo(url) as other:
        trusted, careful = one.collection("leases"), other.collection("leases")
        await trusted.insert({"_id": "x", "n": 0})

        async def increment(leases: Collection) -> None:
            for _ in range(25):
                await leases.find_and_update({"_id": "x"}, {"$inc": {"n": 1}})

        await asyncio.gather(*(increment(leases) for leases in (trusted, careful, trusted)))
        assert await careful.find({}) == [{"_id": "x", "n": 75}]


async def test_a_record_that_somebody_put_there_by_hand_is_changed_and_removed(url: str) -> None:
    with closing(MongoClient[dict[str, Any]](url)) as client:
        documents = client.machina.documents
        await asyncio.to_thread(lambda: documents.insert_one({"_id": "x", "name": "a"}))
    async with open_mongo(url) as backend:
        by_hand = backend.collection("documents")
        change = {"$set": {"n": 1}}
        assert await by_hand.find_and_update({"name": {"$ne": 5}}, change) == {
            "_id": "x", "name": "a", "n": 1
        }  # fmt: skip
        assert await by_hand.delete({"n": 1}) == 1


# Outages ---------------------------------------------------------------------------------------


async def test_a_killed_server_is_down_until_it_is_back_with_its_data(
    own_mongo: MongoServer,
) -> None:
    async with open_mongo(own_mongo.url, selection_seconds=1.0) as backend:
        documents = backend.collection("documents")
        await documents.insert({"_id": "x", "n": 1})
        await off_loop(own_mongo.kill)
        outcomes = await asyncio.gather(
            documents.get("x"),
            documents.find({"n": 1}),
            documents.count({}),
            documents.find_and_update({"_id": "x"}, {"$inc": {"n": 1}}),
            documents.update_many({}, {"$inc": {"n": 1}}),
            documents.delete({"n": 1}),
            documents.insert({"_id": "y"}),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [StoreDown] * 7
        await off_loop(own_mongo.start)
        assert await documents.find({}) == [{"_id": "x", "n": 1}]
        assert abs(await backend.now() - datetime.now(UTC)) < timedelta(seconds=1)


async def test_calls_wait_for_a_server_that_stands_still_for_a_moment(
    own_mongo: MongoServer,
) -> None:
    async with open_mongo(own_mongo.url) as backend:
        documents = backend.collection("documents")
        await documents.insert({"_id": "x", "n": 0})
        with own_mongo.frozen():
            change = documents.find_and_update({"_id": "x"}, {"$inc": {"n": 1}})
            waiting = asyncio.create_task(change)
            done, _ = await asyncio.wait([waiting], timeout=1)
            assert not done
        assert await waiting == {"_id": "x", "n": 1}


async def test_a_store_that_stands_still_is_closed_in_good_time(own_mongo: MongoServer) -> None:
    async with open_mongo(own_mongo.url) as backend:
        await backend.collection("documents").get("x")
        with own_mongo.frozen():
            waiting = asyncio.create_task(backend.collection("documents").get("x"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            began = time.monotonic()
            await backend._connection.close()
            assert time.monotonic() - began < 2.5


async def test_a_crowd_of_calls_takes_turns(server: MongoReplies) -> None:
    async with open_mongo(server.url) as backend:
        documents = backend.collection("documents")
        await documents.get("x")
        server.most_at_once, server.delay = 0, 0.02
        calls = [documents.get(f"{n}") for n in range(100)]
        assert await asyncio.gather(*calls) == [None] * 100
        assert CALLS_AT_ONCE / 2 < server.most_at_once <= CALLS_AT_ONCE + 1  # and the monitor
