"""Executors: the exact answers that existing clients read, in the foreground and background."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from machina.queue.names import Queue
from machina.runs.run import Outcome, RunStatus
from tests.api.harness import (
    HELLO,
    Api,
    assert_problem,
    busy_worker,
    claim,
    make_settings,
    next_hand,
    running_api,
)
from tests.services import RedisServer

GOOD = Outcome(
    RunStatus.EXECUTED,
    content="Good morning",
    suggestions=["more"],
    state={"answer": 42, "flag": True, "thread_id": "t1"},
)
FAILED = Outcome(RunStatus.FAILED, code="task_failed", message="The task 'ask' failed.")
TIMEOUT = Outcome(RunStatus.TIMEOUT, code="timeout", message="The run took too long.")


async def test_a_foreground_run_answers_with_its_final_state(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with busy_worker(api.resources, GOOD) as claimed:
        answer = await client.post("/agent/executor/hello", json=HELLO)
    (run,) = claimed
    body = answer.json()
    assert answer.status_code == 200
    assert body["status"] is True
    data = body["data"]
    assert data["agent_run_id"] == data["task_id"] == data["execution_id"] == run.id
    assert data["status"] == "agent-executed"
    assert data["response"]["content"] == "Good morning"
    assert data["response"]["answer"] == 42
    assert data["response"]["flag"] is True
    assert data["response"]["thread_id"] == "t1"
    assert data["response"]["suggestions"] == ["more"]
    assert (run.queue, run.streamed) == (Queue.HIGH, False)
    assert answer.headers["cache-control"] == "no-store"


async def test_an_agent_is_executed_under_all_its_paths(
    api: Api, client: httpx.AsyncClient
) -> None:
    agent_id = await api.install("agent", "other")
    async with busy_worker(api.resources, GOOD) as claimed:
        for path in ("executor/other", f"executor/id/{agent_id}", "execute/other"):
            assert (await client.post(f"/agent/{path}", json=HELLO)).status_code == 200
        assert (await client.post(f"/agent/execute/{agent_id}", json=HELLO)).status_code == 200
    assert [run.target_id for run in claimed] == [agent_id] * 4


async def test_a_delayed_run_answers_at_once_with_its_ids(
    api: Api, client: httpx.AsyncClient
) -> None:
    answer = await client.post(
        "/agent/executor/hello", json=HELLO | {"agent-config": {"delay": True}}
    )
    (run,) = await api.resources.attempts.records.find({})
    assert answer.json() == {
        "data": {
            "agent_run_id": run.id,
            "task_id": run.id,
            "execution_id": run.id,
            "status": "scheduled",
        },
        "message": "agent scheduled",
        "status": True,
    }
    assert (run.queue, run.streamed) == (Queue.NORMAL, False)
    assert run.inputs == HELLO, "hints about the manner of execution do not reach the run"


async def test_a_run_that_takes_longer_than_clients_wait_answers_as_queued(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = make_settings(tmp_path, redis_server.url, sync_wait_seconds=0.05)
    async with running_api(settings) as api, api.calls(api.client) as client:
        answer = (await client.post("/agent/executor/hello", json=HELLO)).json()
        workflow = (await client.post("/workflow/execute/greet", json={})).json()
        assert answer["status"] is True
        assert answer["data"]["status"] == "scheduled"
        assert "response" not in answer["data"]
        assert set(workflow["data"]) == {"workflow_run_id", "status"}
        hand = await claim(api.resources, answer["data"]["agent_run_id"])
        await hand.start()
        shown = await client.get(f"/execution/agent-run/{answer['data']['agent_run_id']}")
        assert shown.json()["data"]["status"] == "running"
        await hand.finish(GOOD)


async def test_a_foreground_call_is_answered_when_the_process_drains(
    api: Api, client: httpx.AsyncClient
) -> None:
    waiting = asyncio.create_task(client.post("/agent/executor/hello", json=HELLO))
    hand = await next_hand(api.resources)
    await hand.start()
    api.resources.draining = True
    answer = (await asyncio.wait_for(waiting, 2)).json()
    assert (answer["status"], answer["data"]["status"]) == (True, "running")
    assert answer["message"] == "agent still running"
    assert (await hand.finish(GOOD)).status is RunStatus.EXECUTED


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (FAILED, 500, "task_failed"),
        (TIMEOUT, 504, "timeout"),
        (Outcome(RunStatus.CANCELLED), 500, "cancelled"),
    ],
)
async def test_a_foreground_run_that_fails_is_an_error_that_names_it(
    api: Api, client: httpx.AsyncClient, outcome: Outcome, status: int, code: str
) -> None:
    async with busy_worker(api.resources, outcome) as claimed:
        answer = await client.post("/agent/executor/hello", json=HELLO)
    body = assert_problem(answer, status, code)
    assert body["details"]["agent_run_id"] == claimed[0].id
    assert "error_id" not in body["error"], "a run that failed is no defect of the server"


async def test_workflow_outputs_stand_next_to_id_and_status(
    api: Api, client: httpx.AsyncClient
) -> None:
    outputs = {"resolved": True, "count": 3, "error": None, "status": "mine", "workflow_run_id": 1}
    async with busy_worker(api.resources, Outcome(RunStatus.EXECUTED, state=outputs)) as claimed:
        answer = await client.post("/workflow/execute/greet", json={"city": "Lisbon"})
        again = await client.post("/workflow/executor/greet", json={"city": "Lisbon"})
    assert answer.json() == {
        "data": {
            "resolved": True,
            "count": 3,
            "error": None,
            "workflow_run_id": claimed[0].id,
            "status": "executed",
        },
        "status": True,
    }
    assert again.json()["data"]["workflow_run_id"] == claimed[1].id
    assert claimed[0].inputs == {"city": "Lisbon"}
    assert claimed[0].queue is Queue.HIGH


@pytest.mark.parametrize("outcome", [FAILED, TIMEOUT])
async def test_a_failed_workflow_is_200_and_says_failed(
    api: Api, client: httpx.AsyncClient, outcome: Outcome
) -> None:
    async with busy_worker(api.resources, outcome) as claimed:
        answer = await client.post("/workflow/execute/greet", json={})
    assert answer.status_code == 200
    assert answer.json()["data"] == {
        "outcome": str(outcome.status),
        "error": {"id": outcome.code, "message": outcome.message},
        "workflow_run_id": claimed[0].id,
        "status": "failed",
    }


async def test_a_scheduled_workflow_is_polled_to_its_end(
    api: Api, client: httpx.AsyncClient
) -> None:
    answer = await client.post("/workflow/schedule/greet", json={"context-workflow": {"n": 1}})
    run_id = answer.json()["data"]["workflow_run_id"]
    assert answer.json()["data"]["status"] == "scheduled"
    waiting = (await client.get(f"/workflow/schedule/{run_id}")).json()
    assert waiting["data"] == {
        "workflow_run_id": run_id,
        "status": "scheduled",
        "workflow_output": {},
    }
    hand = await claim(api.resources, run_id)
    assert hand.run.queue is Queue.LOW
    await hand.start()
    await hand.finish(Outcome(RunStatus.EXECUTED, state={"greeting": "Hi"}))
    done = (await client.get(f"/workflow/schedule/{run_id}")).json()
    assert done["data"]["status"] == "executed"
    assert done["data"]["workflow_output"] == {"greeting": "Hi"}


async def test_a_scheduled_workflow_of_somebody_else_is_404(
    api: Api, client: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    answer = await admin.post("/workflow/schedule/greet", json={})
    run_id = answer.json()["data"]["workflow_run_id"]
    assert_problem(await client.get(f"/workflow/schedule/{run_id}"), 404, "not_found")


async def test_executors_take_no_permit(api: Api, client: httpx.AsyncClient) -> None:
    gate = api.admission.gate
    permits = [await gate.acquire() for _ in range(gate.capacity)]
    async with busy_worker(api.resources, GOOD):
        answer = await client.post("/agent/executor/hello", json=HELLO)
    assert answer.status_code == 200
    assert len(permits) == gate.active


async def test_the_same_key_answers_about_the_same_run(api: Api, client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    async with busy_worker(api.resources, GOOD) as claimed:
        first = await client.post("/agent/executor/hello", json=HELLO, headers=headers)
        again = await client.post("/agent/executor/hello", json=HELLO, headers=headers)
        scheduled = await client.post("/workflow/schedule/greet", json={}, headers=headers)
        repeated = await client.post("/workflow/schedule/greet", json={}, headers=headers)
    assert first.json() == again.json()
    assert scheduled.json()["data"]["workflow_run_id"] == repeated.json()["data"]["workflow_run_id"]
    assert len(claimed) <= 2
    other = await client.post("/agent/executor/hello", json={}, headers=headers)
    assert_problem(other, 409, "idempotency_mismatch")


async def test_a_failed_run_joined_in_the_background_is_no_error(
    api: Api, client: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": "k"}
    body = HELLO | {"agent-config": {"delay": True}}
    async with busy_worker(api.resources, FAILED):
        await client.post("/agent/executor/hello", json=body, headers=headers)
        (run,) = await api.resources.attempts.records.find({})
        await api.resources.runs.wait(run, 5)
    again = await client.post("/agent/executor/hello", json=body, headers=headers)
    assert again.status_code == 200
    assert again.json()["data"]["status"] == "failed"


async def test_an_unknown_target_is_404_here_too(client: httpx.AsyncClient) -> None:
    for path in ("agent/executor", "agent/executor/id", "workflow/execute", "workflow/schedule"):
        assert_problem(await client.post(f"/{path}/nobody", json={}), 404, "not_found")
