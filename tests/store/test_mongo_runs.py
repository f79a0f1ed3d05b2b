"""Runs of a deployment whose store is in MongoDB, from request to record and through outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings, load_settings
from machina.worker.crew import WorkerCrew
from tests.fleet import (
    ask,
    assert_sound,
    get_run,
    install_hello,
    open_process,
    open_worker,
    shown_text,
    types_of,
    until_status,
    watch,
)
from tests.mongo_server import MongoServer, empty, shared_server
from tests.proxy import FaultProxy
from tests.services import RedisServer, off_loop

QUICK = "[[script: tokens=20 delay_ms=0]]"
ENDLESS = "[[script: tokens=2000 delay_ms=20]]"


class MongoProxy(FaultProxy):
    """Breaks connections to a port of the loopback interface."""

    @property
    def url(self) -> str:
        return super().url.replace("redis://", "mongodb://") + "/machina"

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", int(self._target))


@pytest.fixture
async def proxy() -> AsyncIterator[MongoProxy]:
    """A proxy before the shared server, which is empty."""
    empty(shared_server().url)
    proxy = MongoProxy(str(shared_server().port))
    await proxy.start()
    yield proxy
    await proxy.close()


@pytest.fixture
def own_mongo() -> Iterator[MongoServer]:
    server = MongoServer()
    yield server
    server.close()


def make_settings(url: str, redis: RedisServer) -> Settings:
    return load_settings(mongodb_url=url, redis_url=redis.url, environment="dev", lease_seconds=1.0)


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return make_settings(empty(shared_server().url), redis_server)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Resources]:
    async with open_process(settings) as resources:
        await install_hello(resources)
        yield resources


@pytest.fixture
async def worker(settings: Settings, api: Resources) -> AsyncIterator[WorkerCrew]:
    async with open_worker(settings) as crew:
        yield crew


def seen_in(events: list[dict[str, Any]], status: str) -> None:
    """The stream is whole, and ends as the run did."""
    assert_sound(events)
    assert events[-1]["metadata"]["status"] == status
    assert events[-1]["metadata"]["content"] == shown_text(events) != ""


async def test_a_run_is_submitted_executed_and_viewed(api: Resources, worker: WorkerCrew) -> None:
    run, is_new = await api.runs.submit(ask(QUICK, idempotency="k", fingerprint="f"))
    joined = await api.runs.submit(ask(QUICK, idempotency="k", fingerprint="f"))
    assert (is_new, joined[0].id, joined[1]) == (True, run.id, False)

    await worker.execute(run.id)

    events = await watch(api, run)
    seen_in(events, "executed")
    assert types_of(events) == ["start", "status_update", "content", "done"]
    record = await get_run(api, run)
    assert (record.status, record.attempt, record.published) == ("executed", 1, True)
    assert [step["status"] for step in record.steps] == ["executed", "executed"]
    page, total = await api.runs.search(
        project=run.project,
        principal=run.principal,
        kinds=["agent"],
        query={"created": {"$lte": record.finished}, "status": {"$ne": "failed"}},
        sort=[("created", -1)],
        skip=0,
        limit=5,
    )
    assert ([found.id for found in page], total) == ([run.id], 1)


async def test_a_running_and_a_waiting_run_are_cancelled(
    api: Resources, worker: WorkerCrew
) -> None:
    run, _ = await api.runs.submit(ask(ENDLESS))
    waiting, _ = await api.runs.submit(ask(ENDLESS))
    execution = asyncio.create_task(worker.execute(run.id))
    await watch(api, run, until="content")

    await api.runs.cancel(run)
    await api.runs.cancel(waiting)
    await asyncio.wait_for(execution, 3)

    seen_in(await watch(api, run), "cancelled")
    assert types_of(await watch(api, waiting)) == ["start", "done"]
    assert {(await get_run(api, each)).status for each in (run, waiting)} == {"cancelled"}


async def test_two_workers_and_many_wake_ups_make_one_attempt(
    api: Resources, worker: WorkerCrew, settings: Settings
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    async with open_worker(settings, "worker-2") as other:
        await asyncio.gather(*(each.execute(run.id) for each in (worker, other) * 3))
    assert (await get_run(api, run)).attempt == 1
    seen_in(await watch(api, run), "executed")


async def test_of_many_who_claim_one_gets_the_run(api: Resources) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    claims = await asyncio.gather(*(api.attempts.claim(run.id, f"w{n}") for n in range(12)))
    (winner,) = (claim for claim in claims if claim is not None)
    record = await get_run(api, run)
    assert (record.worker, record.attempt, record.started) == (winner.worker, 1, winner.started)


async def test_the_run_of_a_worker_that_died_is_taken_up_by_another(
    api: Resources, settings: Settings
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    await api.store.leases.register("worker-gone", {})  # and never renewed
    assert await api.attempts.claim(run.id, "worker-gone") is not None

    reaper = asyncio.create_task(api.reaper.run())
    back = await until_status(api, run, "scheduled")
    async with open_worker(settings, "worker-2") as other:
        await other.execute(run.id)
    reaper.cancel()

    assert (back.attempt, back.attempts_spent) == (1, 1)
    assert await api.store.leases.workers() == []
    record = await get_run(api, run)
    assert (record.status, record.attempt, record.attempts_spent) == ("executed", 2, 1)
    events = await watch(api, run)
    seen_in(events, "executed")
    assert events[0]["id"] == "2-1"


# Outages at the end ----------------------------------------------------------------------------


async def begin(api: Resources, worker: WorkerCrew) -> tuple[Run, asyncio.Task[None]]:
    """A run whose answer is under way and takes another half second."""
    await install_hello(api)
    run, _ = await api.runs.submit(ask("[[script: tokens=30 delay_ms=20]]"))
    execution = asyncio.create_task(worker.execute(run.id))
    await watch(api, run, until="content")
    return run, execution


async def require_one_end(api: Resources, run: Run) -> None:
    record = await get_run(api, run)
    assert (record.status, record.attempt, record.attempts_spent) == ("executed", 1, 0)
    assert record.published
    seen_in(await watch(api, run), "executed")


async def test_a_run_that_ends_while_the_store_stands_still_is_decided_once_it_moves(
    own_mongo: MongoServer, redis_server: RedisServer
) -> None:
    settings = await asyncio.to_thread(make_settings, own_mongo.url, redis_server)
    async with open_process(settings) as api, open_worker(settings) as worker:
        run, execution = await begin(api, worker)
        with own_mongo.frozen():
            done, _ = await asyncio.wait([execution], timeout=3)
            assert not done
        await execution
        await require_one_end(api, run)


async def test_a_run_that_ends_while_the_store_is_away_is_decided_once_it_is_back(
    own_mongo: MongoServer, redis_server: RedisServer
) -> None:
    settings = await asyncio.to_thread(make_settings, own_mongo.url, redis_server)
    async with open_process(settings) as api, open_worker(settings) as worker:
        run, execution = await begin(api, worker)
        await off_loop(own_mongo.kill)
        done, _ = await asyncio.wait([execution], timeout=1.5)
        assert not done
        top = (await api.reader.inspect(run.id)).top
        assert top is not None
        assert not top.is_terminal  # the end is not told before it is kept
        await off_loop(own_mongo.start)
        await execution
        await require_one_end(api, run)


async def test_a_decision_whose_answer_was_lost_is_known_again_as_the_attempts_own(
    proxy: MongoProxy, redis_server: RedisServer
) -> None:
    settings = await asyncio.to_thread(make_settings, proxy.url, redis_server)
    async with open_process(settings) as api, open_worker(settings) as worker:
        run, execution = await begin(api, worker)
        proxy.drop_reply_to(b"suggestions\0")  # a field that only an outcome has
        await execution
        assert proxy.dropped == 1
        await require_one_end(api, run)
