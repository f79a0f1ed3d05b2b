"""Runs as rows: what is in them, how they are searched, and how a run is cancelled."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import httpx

from machina.auth import Scope
from machina.runs.run import Outcome, Run, RunStatus
from tests.api.harness import HELLO, Api, assert_problem, busy_worker, claim, lines, next_hand

OUTCOMES = (
    Outcome(RunStatus.EXECUTED, content="one", state={"answer": 1}),
    Outcome(RunStatus.FAILED, code="task_failed", message="two"),
    Outcome(RunStatus.CANCELLED),
    Outcome(RunStatus.TIMEOUT, code="timeout", message="four"),
)


async def make_runs(api: Api, key: str, count: int = 4) -> list[Run]:
    async with api.calls(key) as calls, busy_worker(api.resources, *OUTCOMES) as claimed:
        for _ in range(count):
            await calls.post("/agent/stream/hello", json=HELLO)
    return claimed


async def search(calls: httpx.AsyncClient, kind: str = "agent", **body: Any) -> list[str]:
    answer = await calls.post(f"/execution/{kind}-search", json=body)
    assert answer.status_code == 200, answer.text
    return [row["_id"] for row in answer.json()["data"]]


async def test_a_run_is_shown_as_clients_read_it(api: Api, client: httpx.AsyncClient) -> None:
    (run,) = await make_runs(api, api.client, 1)
    body = (await client.get(f"/execution/agent-run/{run.id}")).json()
    assert body["status"] is True
    row = body["data"]
    assert (row["_id"], row["name"], row["status"]) == (run.id, "hello", "agent-executed")
    assert row["agent_id"] == run.target_id
    assert isinstance(row["execution_time"], float)
    assert row["execution_tokens"] == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }
    assert row["response"]["content"] == "one"
    assert row["response"]["answer"] == 1
    assert row["workflows"] == []
    assert (row["total_workflows"], row["completed_workflows"]) == (0, 0)
    for date in ("created", "date", "updated", "started_time", "finished_time"):
        assert row[date].endswith(" GMT")
        assert abs(parsedate_to_datetime(row[date]) - run.created) < timedelta(seconds=10)
    inside = {"project", "principal", "idempotency", "fingerprint", "worker", "attempt", "inputs"}
    assert not inside & set(row), "the inside of a record is nobody's business"


async def test_a_compact_run_leaves_out_the_steps_and_keeps_the_response(
    api: Api, client: httpx.AsyncClient
) -> None:
    (run,) = await make_runs(api, api.client, 1)
    row = (await client.get(f"/execution/agent-run/{run.id}?compact=true")).json()["data"]
    assert "workflows" not in row
    assert row["response"]["content"] == "one"


async def test_a_run_of_a_workflow_is_shown_under_both_paths(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with busy_worker(api.resources, OUTCOMES[0]) as claimed:
        await client.post("/workflow/execute/greet", json={})
    run_id = claimed[0].id
    by_twin = (await client.get(f"/execution/workflow-run/{run_id}")).json()["data"]
    by_agent_path = (await client.get(f"/execution/agent-run/{run_id}")).json()["data"]
    assert by_twin == by_agent_path
    assert (by_twin["status"], by_twin["workflow_id"]) == ("executed", claimed[0].target_id)
    (agent_run,) = await make_runs(api, api.client, 1)
    answer = await client.get(f"/execution/workflow-run/{agent_run.id}")
    assert_problem(answer, 404, "not_found")
    assert await search(client, "workflow") == [run_id]
    assert await search(client, "agent") == [agent_run.id]


async def test_every_end_but_success_reads_failed_and_says_which(
    api: Api, client: httpx.AsyncClient
) -> None:
    runs = await make_runs(api, api.client)
    shown = {}
    for run in runs:
        row = (await client.get(f"/execution/agent-run/{run.id}")).json()["data"]
        shown[run.id] = (row["status"], row.get("outcome"), row.get("error", {}).get("id"))
    assert [shown[run.id] for run in runs] == [
        ("agent-executed", None, None),
        ("failed", "failed", "task_failed"),
        ("failed", "cancelled", None),
        ("failed", "timeout", "timeout"),
    ]


async def test_searches_filter_by_public_words(api: Api, client: httpx.AsyncClient) -> None:
    good, failed, cancelled, late = [run.id for run in await make_runs(api, api.client)]
    waiting = await client.post("/agent/executor/hello", json={"agent-config": {"delay": True}})
    queued = waiting.json()["data"]["agent_run_id"]
    expected: list[tuple[Any, set[str]]] = [
        ("agent-executed", {good}),
        ("failed", {failed, cancelled, late}),
        ("scheduled", {queued}),
        ("running", set()),
        ("completed", set()),
        ({"$in": ["agent-executed", "scheduled"]}, {good, queued}),
        ({"$ne": "failed"}, {good, queued}),
        ({"$nin": ["failed", "scheduled"]}, {good}),
        ({"$in": ["failed"], "$ne": "timeout"}, {failed, cancelled}),
        ("cancelled", {cancelled}),
    ]
    for condition, found in expected:
        assert set(await search(client, filters={"status": condition})) == found, condition
    assert await search(client, filters={"outcome": "timeout"}) == [late]
    either = {"$or": [{"status": "scheduled"}, {"$and": [{"outcome": "timeout"}]}]}
    assert set(await search(client, filters=either)) == {queued, late}


async def test_searches_filter_by_name_target_id_and_date(
    api: Api, client: httpx.AsyncClient
) -> None:
    run, other, *_ = await make_runs(api, api.client)
    now = run.created
    hour = timedelta(hours=1)
    everything = {r.id for r in await api.resources.attempts.records.find({})}
    for filters, found in (
        ({"name": "hello"}, everything),
        ({"name": {"$regex": "HEL", "$options": "i"}}, everything),
        ({"name": "nobody"}, set()),
        ({"agent_id": run.target_id}, everything),
        ({"_id": run.id}, {run.id}),
        ({"document_id": run.id}, {run.id}),
        ({"_id": {"$in": [run.id, other.id]}}, {run.id, other.id}),
        ({"created": {"$gte": (now - hour).isoformat()}}, everything),
        ({"date": {"$gte": format_datetime(now + hour, usegmt=True)}}, set()),
        ({"created": {"$gte": "2020-01-01", "$lt": "2021-01-01T00:00:00"}}, set()),
        ({"created": {"$exists": True}}, everything),
        ({"started_time": {"$nin": ["2020-01-01", "2021-01-01"]}}, everything),
        ({}, everything),
        (None, everything),
    ):
        assert set(await search(client, filters=filters)) == found, filters


async def test_searches_come_in_pages_newest_first(api: Api, client: httpx.AsyncClient) -> None:
    made = [run.id for run in await make_runs(api, api.client, 5)]
    newest_first = made[::-1]
    assert await search(client) == newest_first
    assert await search(client, sorters=["_id", 1]) == made
    assert await search(client, sorters=[["name", 1], ["_id", 1]]) == made
    assert await search(client, sort="_id") == made
    assert await search(client, sort="-created") == newest_first
    assert await search(client, page=2, page_size=2) == newest_first[2:4]
    assert await search(client, page="3", page_size=2.0) == newest_first[4:]
    answer = await client.post("/execution/agent-search", json={"page": 2, "page_size": 2})
    body = answer.json()
    assert {key: body[key] for key in body if key != "data"} == {
        "status": True,
        "total_documents": 5,
        "total": 5,
        "pagination": {"page": 2, "page_size": 2, "total": 5, "total_documents": 5},
    }


async def test_rows_are_full_only_when_compact_is_false(
    api: Api, client: httpx.AsyncClient
) -> None:
    await make_runs(api, api.client, 1)

    async def row(**body: Any) -> dict[str, Any]:
        answer = await client.post("/execution/agent-search", json=body)
        (only,) = answer.json()["data"]
        assert isinstance(only, dict)
        return only

    assert not {"response", "workflows"} & set(await row())
    assert {"response", "workflows"} <= set(await row(compact=False))
    assert set(await row(fields=["name", "status", "project"])) == {"_id", "name", "status"}
    assert set(await row(fields={"name": 1, "status": 0})) == {"_id", "name"}


async def test_a_search_that_makes_no_sense_is_422_and_says_what_does(
    client: httpx.AsyncClient,
) -> None:
    deep: dict[str, Any] = {}
    for _ in range(20):
        deep = {"$and": [deep]}
    for body, field in (
        ({"filters": []}, "filters"),
        ({"filters": {"principal": "x"}}, "filters"),
        ({"filters": {"project": {"$ne": "default"}}}, "filters"),
        ({"filters": {"$where": "1"}}, "filters"),
        ({"filters": {"$or": {}}}, "filters"),
        ({"filters": deep}, "filters"),
        ({"filters": {"status": {"$regex": "a"}}}, "filters"),
        ({"filters": {"status": {"$in": "failed"}}}, "filters"),
        ({"filters": {"created": {"$gte": "yesterday"}}}, "filters"),
        ({"sorters": ["idempotency", 1]}, "sorters"),
        ({"sorters": ["_id", 2]}, "sorters"),
        ({"sorters": ["_id", True]}, "sorters"),
        ({"sorters": [["_id"]]}, "sorters"),
        ({"sorters": "_id"}, "sorters"),
        ({"sort": 1}, "sort"),
        ({"page": 0}, "page"),
        ({"page": True}, "page"),
        ({"page_size": 5_001}, "page_size"),
        ({"page_size": "ten"}, "page_size"),
        ({"fields": "name"}, "fields"),
    ):
        answer = await client.post("/execution/agent-search", json=body)
        problem = assert_problem(answer, 422, "invalid_request")
        assert problem["error"]["field"] == field, body
    unknown_operator = {"filters": {"name": {"$function": "x"}}}
    answer = await client.post("/execution/agent-search", json=unknown_operator)
    assert_problem(answer, 422, "query_refused")


async def test_a_key_finds_its_own_runs_and_an_administrator_those_of_the_project(
    api: Api, client: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    mine = await make_runs(api, api.client, 1)
    neighbour = await make_runs(api, await api.key(), 1)
    stranger = await api.key(Scope.ADMIN, project="elsewhere")
    assert await search(client) == [mine[0].id]
    assert set(await search(admin)) == {mine[0].id, neighbour[0].id}
    async with api.calls(stranger) as calls:
        assert await search(calls) == []
    trick = {"$or": [{"_id": neighbour[0].id}, {"name": "hello"}]}
    assert await search(client, filters=trick) == [mine[0].id]


async def test_cancelling_a_waiting_run_ends_it_at_once(
    api: Api, client: httpx.AsyncClient
) -> None:
    answer = await client.post("/workflow/schedule/greet", json={})
    run_id = answer.json()["data"]["workflow_run_id"]
    body = (await client.post(f"/execution/workflow-run/{run_id}/cancel")).json()
    assert body["status"] is True
    assert body["data"] == {
        "run_id": run_id,
        "status": "failed",
        "cancel_requested": True,
        "outcome": "cancelled",
    }
    stream = await client.get(f"/execution/workflow-run/{run_id}/stream")
    assert [event["type"] for event in lines(stream.content)] == ["start", "done"]
    again = await client.post(f"/execution/agent-run/{run_id}/cancel")
    assert again.json()["data"] == body["data"]


async def test_cancelling_a_running_run_asks_its_holder_and_an_ended_one_stays(
    api: Api, client: httpx.AsyncClient
) -> None:
    started = asyncio.create_task(client.post("/agent/stream/hello", json=HELLO))
    hand = await next_hand(api.resources)
    await hand.start()
    asked = (await client.post(f"/execution/agent-run/{hand.run.id}/cancel")).json()["data"]
    assert (asked["status"], asked["cancel_requested"]) == ("running", True)
    await hand.finish(Outcome(RunStatus.EXECUTED, content="too late"))
    await started
    after = (await client.post(f"/execution/agent-run/{hand.run.id}/cancel")).json()
    assert after["data"]["status"] == "agent-executed"
    assert after["message"] == "run had ended before"


async def test_a_foreign_run_cannot_be_cancelled(api: Api, client: httpx.AsyncClient) -> None:
    answer = await client.post("/workflow/schedule/greet", json={})
    run_id = answer.json()["data"]["workflow_run_id"]
    async with api.calls(await api.key()) as neighbour:
        for kind in ("agent", "workflow"):
            refused = await neighbour.post(f"/execution/{kind}-run/{run_id}/cancel")
            assert_problem(refused, 404, "not_found")
    hand = await claim(api.resources, run_id)
    assert not hand.run.cancel_requested
