"""`/metrics`: who may see it, and that an API process counts what happens to its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from machina.breaker import State
from machina.observability.exposition import CONTENT_TYPE
from tests.api.harness import (
    HELLO,
    Api,
    assert_problem,
    busy_worker,
    ids,
    make_settings,
    next_hand,
    running_api,
    serving,
)
from tests.measuring import measured, series
from tests.running import eventually
from tests.services import RedisServer


@pytest.fixture
async def small(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Api]:
    """An API with one permit and two viewers."""
    settings = make_settings(
        tmp_path, redis_server.url, max_concurrent_streams=1, max_viewers=2, gate_wait_seconds=0
    )
    async with running_api(settings) as api:
        yield api


def shown(api: Api) -> dict[str, float]:
    return measured(api.resources.metrics.source)


def refused(api: Api) -> dict[str, float]:
    prefix = 'machina_requests_refused_total{reason="'
    return {
        name.removeprefix(prefix).removesuffix('"}'): value
        for name, value in shown(api).items()
        if name.startswith(prefix) and value
    }


async def test_an_administrator_gets_the_text_prometheus_reads(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert answer.headers["cache-control"] == "no-store"
    numbers = series(answer.content)
    assert numbers['machina_processes{process="api"}'] == 1
    assert numbers['machina_runs_ended_total{kind="agent",outcome="failed"}'] == 0
    assert "# HELP machina_streams_open Streams that are being sent now.\n" in answer.text


async def test_nobody_else_gets_it(client: httpx.AsyncClient, nobody: httpx.AsyncClient) -> None:
    assert_problem(await nobody.get("/metrics"), 401, "unauthenticated")
    assert_problem(await client.get("/metrics"), 403, "forbidden")


async def test_requests_are_counted_by_template_and_class_and_timed(
    api: Api, client: httpx.AsyncClient, nobody: httpx.AsyncClient
) -> None:
    await client.get("/execution/agent-run/0123456789abcdef01234567")
    await client.get("/execution/agent-run/0123456789abcdef0123456f")
    await client.get("/no/such/path")
    await nobody.get("/execution/agent-run/0123456789abcdef01234567")
    await client.request("BREW", "/system/liveness")
    numbers = shown(api)
    requests = "machina_http_requests_total"
    run = "/execution/agent-run/{run_id}"
    assert numbers[f'{requests}{{method="GET",route="{run}",status="4xx"}}'] == 2
    assert numbers[f'{requests}{{method="GET",route="none",status="4xx"}}'] == 2
    assert numbers[f'{requests}{{method="other",route="/system/liveness",status="4xx"}}'] == 1
    assert numbers[f'machina_http_answer_seconds_count{{route="{run}"}}'] == 2
    assert not [name for name in numbers if "0123456789" in name or "BREW" in name]


async def test_a_stream_counts_from_its_request_to_its_end(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with busy_worker(api.resources):
        await client.post("/agent/stream/hello", json=HELLO)
    numbers = shown(api)
    assert numbers['machina_streams_opened_total{kind="start"}'] == 1
    assert numbers['machina_streams_ended_total{ending="done"}'] == 1
    assert numbers["machina_stream_first_event_seconds_count"] == 1
    assert 0 < numbers["machina_stream_first_event_seconds_sum"] < 5
    answered = 'machina_http_answer_seconds_count{route="/agent/stream/{agent}"}'
    assert numbers[answered] == 1
    assert numbers["machina_commit_entries_total"] == 5
    assert 1 <= numbers["machina_commit_seconds_count"] <= 5
    assert numbers["machina_append_seconds_count"] == numbers["machina_commit_seconds_count"]
    assert numbers["machina_append_seconds_sum"] >= numbers["machina_commit_seconds_sum"]


async def test_who_comes_back_is_told_apart_from_who_joins_and_who_replays(
    api: Api, client: httpx.AsyncClient
) -> None:
    key = {"Idempotency-Key": "k"}
    start = asyncio.create_task(client.post("/agent/stream/hello", json=HELLO, headers=key))
    hand = await next_hand(api.resources)
    await hand.start()
    path = f"/execution/agent-run/{hand.run.id}/stream"
    watching = [
        asyncio.create_task(client.get(path)),
        asyncio.create_task(client.post("/agent/stream/hello", json=HELLO, headers=key)),
        asyncio.create_task(client.get(path, headers={"Last-Event-ID": "1-1"})),
    ]
    await eventually(lambda: len(api.streams) == 4)
    await hand.finish()
    last = ids((await start).content)[-1]
    await asyncio.gather(*watching)
    await client.get(path)
    await client.get(path, params={"after": "1-1"})
    await client.get(path, params={"after": last})
    numbers = shown(api)
    opened = {
        kind: numbers[f'machina_streams_opened_total{{kind="{kind}"}}']
        for kind in ("start", "join", "resume", "replay")
    }
    assert opened == {"start": 1, "join": 2, "resume": 3, "replay": 1}
    assert numbers["machina_stream_first_event_seconds_count"] == 1, "starts only"


async def test_the_gauges_show_what_is_held_and_give_it_back(small: Api) -> None:
    def gauges() -> tuple[float, ...]:
        numbers = shown(small)
        names = ("streams_open", "viewers", "permits_in_use", "permits")
        return tuple(numbers[f"machina_{name}"] for name in names)

    async with small.calls(small.client) as calls:
        stream = asyncio.create_task(calls.post("/agent/stream/hello", json=HELLO))
        hand = await next_hand(small.resources)
        await hand.start()
        await eventually(lambda: gauges() == (1, 1, 1, 1))
        await hand.finish()
        await stream
        await eventually(lambda: gauges() == (0, 0, 0, 1))


async def test_every_refusal_is_counted_under_its_reason(small: Api) -> None:
    async with small.calls(small.client) as calls:
        stream = asyncio.create_task(calls.post("/agent/stream/hello", json=HELLO))
        hand = await next_hand(small.resources)
        await hand.start()
        path = f"/execution/agent-run/{hand.run.id}/stream"
        await calls.post("/agent/stream/hello", json=HELLO)
        assert refused(small) == {"gate": 1}
        second = asyncio.create_task(calls.get(path))
        await eventually(lambda: len(small.streams) == 2)
        await calls.get(path)
        assert refused(small) == {"gate": 1, "viewers": 1}
        small.resources.draining = True
        await calls.get(path)
        assert refused(small) == {"gate": 1, "viewers": 1, "draining": 1}
        small.resources.draining = False
        await hand.finish()
        await asyncio.gather(stream, second)
    answered = shown(small)
    name = 'machina_http_requests_total{method="POST",route="/agent/stream/{agent}",status="4xx"}'
    assert answered[name] == 1


async def test_an_outage_of_redis_shows_in_refusals_and_in_the_breakers_state(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    def states(api: Api) -> dict[str, float]:
        name = 'machina_breaker_processes{{breaker="agent_streaming",state="{}"}}'
        return {str(state): shown(api)[name.format(state)] for state in State}

    settings = make_settings(tmp_path, own_redis.url, circuit_breaker_threshold=1)
    async with running_api(settings) as api, api.calls(api.client) as calls:
        await eventually(lambda: states(api) == {"closed": 1, "open": 0, "half-open": 0})
        own_redis.kill()
        await calls.post("/agent/stream/hello", json=HELLO)
        assert refused(api) == {"queue": 1}
        await calls.post("/agent/stream/hello", json=HELLO)
        assert refused(api) == {"queue": 1, "breaker": 1}
        await eventually(lambda: states(api) == {"closed": 0, "open": 1, "half-open": 0})


async def test_a_client_that_leaves_is_counted_as_such(api: Api) -> None:
    async with serving(api) as url, httpx.AsyncClient(headers={"X-Api-Token": api.client}) as calls:
        hands = asyncio.create_task(next_hand(api.resources))
        async with calls.stream("POST", f"{url}/agent/stream/hello", json=HELLO):
            hand = await hands
            await hand.start()
            await eventually(lambda: len(api.streams) == 1)
        await eventually(lambda: len(api.streams) == 0)
        await hand.finish()
    gone = 'machina_streams_ended_total{ending="client_gone"}'
    await eventually(lambda: shown(api)[gone] == 1)


async def test_the_process_says_what_it_leans_on(api: Api, client: httpx.AsyncClient) -> None:
    async with busy_worker(api.resources):
        await client.post("/agent/stream/hello", json=HELLO)
    connections = 'machina_redis_connections{{client="{}",process="api"}}'
    await eventually(lambda: shown(api)[connections.format("queue")] >= 1)
    await eventually(lambda: 1 <= shown(api)[connections.format("log")] <= 5)
    await eventually(lambda: shown(api)['machina_loop_lag_seconds_count{process="api"}'] >= 1)
    numbers = shown(api)
    assert numbers['machina_store_call_seconds_count{call="insert"}'] >= 1
    assert numbers['machina_store_call_seconds_count{call="find_and_update"}'] >= 2
    for task in ("writer", "reader", "reaper", "breaker", "streams", "watchdog", "sampler"):
        assert numbers[f'machina_background_restarts_total{{task="{task}"}}'] == 0
    api.supervisor.tasks["reader"].cancel()
    restarts = 'machina_background_restarts_total{task="reader"}'
    await eventually(lambda: shown(api)[restarts] == 1)
