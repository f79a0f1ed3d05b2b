"""What the system says about itself: exact bodies, live values, readiness, the breaker's reset."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.api.harness import HELLO, Api, assert_problem, busy_worker, make_settings, running_api
from tests.running import eventually
from tests.services import RedisServer


async def test_the_health_check_is_exactly_the_guides(nobody: httpx.AsyncClient) -> None:
    answer = await nobody.get("/system/client-health-check")
    assert answer.status_code == 200
    assert answer.content == b'{"data":"System client is healthy"}'
    assert answer.headers["content-type"] == "application/json"


async def test_streaming_health_has_exactly_the_guides_keys_in_its_order(
    nobody: httpx.AsyncClient,
) -> None:
    answer = await nobody.get("/system/streaming-health")
    assert json.dumps(answer.json()) == json.dumps(
        {
            "status": "healthy",
            "circuit_breakers": {
                "agent_streaming": {"state": "closed", "failure_count": 0, "threshold": 5}
            },
            "redis_streams": {"active_streams": 0, "redis_healthy": True},
            "web_worker_streams": {"active": 0, "max": 10, "available": 10},
        }
    )


async def test_streaming_health_shows_what_is_going_on(api: Api, nobody: httpx.AsyncClient) -> None:
    permit = await api.admission.gate.acquire()
    breaker = api.admission.breaker
    breaker.failure(await breaker.admit())
    await breaker.settle()
    body = (await nobody.get("/system/streaming-health")).json()
    assert body["web_worker_streams"] == {"active": 1, "max": 10, "available": 9}
    assert body["circuit_breakers"]["agent_streaming"]["failure_count"] == 1
    for _ in range(4):
        breaker.failure(await breaker.admit())
        await breaker.settle()
    permit.release()
    body = (await nobody.get("/system/streaming-health")).json()
    assert body["status"] == "degraded"
    assert body["circuit_breakers"]["agent_streaming"]["state"] == "open"
    assert body["web_worker_streams"]["available"] == 10


async def test_a_process_that_lives_says_so(nobody: httpx.AsyncClient) -> None:
    answer = await nobody.get("/system/liveness")
    assert answer.json() == {"data": {"alive": True}, "status": True}


async def test_a_ready_process_says_what_it_checked(nobody: httpx.AsyncClient) -> None:
    answer = await nobody.get("/system/readiness")
    assert answer.json()["data"] == {
        "ready": True,
        "accepting": True,
        "tasks": True,
        "store": True,
        "log": True,
        "scripts": [],
    }


async def test_readiness_says_once_how_workers_shut_scripts_in(
    api: Api, nobody: httpx.AsyncClient
) -> None:
    shut = {"enabled": True, "level": 2, "name": "landlock", "network": "open", "not_stopped": []}
    for worker in ("w1", "w2"):
        await api.resources.store.leases.register(worker, {"scripts": shut | {"python": "/x"}})
    await api.resources.store.leases.register("w3", {"scripts": {"enabled": False}})
    await api.resources.store.leases.register("w4", {})
    answer = await nobody.get("/system/readiness")
    assert answer.json()["data"]["scripts"] == [shut, {"enabled": False}]


async def test_a_draining_process_is_not_ready(api: Api, nobody: httpx.AsyncClient) -> None:
    api.resources.draining = True
    answer = await nobody.get("/system/readiness")
    body = assert_problem(answer, 503, "not_ready")
    assert body["details"] == {"accepting": False, "tasks": True, "store": True, "log": True}
    assert answer.headers["retry-after"] == "1"
    assert (await nobody.get("/system/liveness")).status_code == 200


async def test_a_background_task_that_ends_makes_the_process_unready_until_it_runs_again(
    api: Api, nobody: httpx.AsyncClient
) -> None:
    for name in ("reader", "streams"):
        api.supervisor.tasks[name].cancel()
        await eventually(lambda: not api.supervisor.is_healthy)
        body = assert_problem(await nobody.get("/system/readiness"), 503, "not_ready")
        assert body["details"]["tasks"] is False
        await eventually(lambda: api.supervisor.is_healthy)
        assert (await nobody.get("/system/readiness")).status_code == 200


@pytest.fixture
async def fragile(tmp_path: Path, own_redis: RedisServer) -> AsyncIterator[Api]:
    async with running_api(make_settings(tmp_path, own_redis.url)) as api:
        yield api


async def test_without_redis_the_process_is_unready_and_opens_the_breaker(
    fragile: Api, own_redis: RedisServer
) -> None:
    threshold = fragile.admission.breaker.snapshot().threshold
    async with fragile.calls(fragile.admin) as calls:
        own_redis.kill()
        health = (await calls.get("/system/streaming-health")).json()
        assert (health["status"], health["redis_streams"]["redis_healthy"]) == ("degraded", False)
        ready = assert_problem(await calls.get("/system/readiness"), 503, "not_ready")
        assert ready["details"]["log"] is False
        assert (await calls.get("/system/liveness")).status_code == 200
        headers = {"Idempotency-Key": "k"}
        for _ in range(threshold):
            refused = await calls.post("/agent/stream/hello", json=HELLO, headers=headers)
            assert_problem(refused, 503, "queue_unavailable")
            await fragile.admission.breaker.settle()
        open_now = await calls.post("/agent/stream/hello", json=HELLO, headers=headers)
        assert_problem(open_now, 503, "breaker_open")
        assert fragile.admission.gate.active == 0
        own_redis.start()
        reset = await calls.post("/system/circuit-breaker/reset/agent_streaming")
        assert reset.json() == {
            "data": {
                "name": "agent_streaming",
                "state": "closed",
                "failure_count": 0,
                "threshold": threshold,
            },
            "message": "circuit breaker reset",
            "status": True,
        }
        async with busy_worker(fragile.resources):
            accepted = await calls.post("/agent/stream/hello", json=HELLO, headers=headers)
        assert accepted.status_code == 200, "a refusal does not use the key up"


async def test_without_the_store_the_process_is_unready_and_says_so_to_callers(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with running_api(make_settings(tmp_path, redis_server.url)) as api:
        key = await api.key()
    async with api.calls(key) as calls:  # everything behind it is closed by now
        body = assert_problem(await calls.get("/system/readiness"), 503, "not_ready")
        assert body["details"]["store"] is False
        refused = await calls.post("/execution/agent-search", json={})
        assert assert_problem(refused, 503, "store_unavailable")["error"]["retryable"] is True
        assert (await calls.get("/system/liveness")).status_code == 200
    await api.resources.log_client.aclose()


async def test_a_breaker_that_does_not_exist_is_404(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/system/circuit-breaker/reset/coffee")
    assert "agent_streaming" in assert_problem(answer, 404, "not_found")["detail"]
