"""The routes of schedules: who sees them, how they are searched, paused, resumed, triggered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from machina.scheduler import make_scheduler
from tests.api.harness import Api, assert_problem


@pytest.fixture
async def planned(api: Api) -> Api:
    """The API with a frequency that has fired, a job by cron, and what cannot fire."""
    await api.install("agent", "ticker", context={"config-frequency": 10})
    await api.install(
        "agent",
        "report",
        status="active",
        jobs=[
            {"name": "daily", "cron": "0 8 * * *", "target": "hello", "context": {"city": "Porto"}},
            {"name": "broken", "cron": "every day"},
        ],
    )
    await api.install("agent", "other", project="elsewhere", context={"config-frequency": 10})
    await look(api)
    return api


async def look(api: Api) -> None:
    """Lets a scheduler look until there is nothing to do."""
    scheduler = make_scheduler(api.resources)
    while not await scheduler.tick():
        pass


@asynccontextmanager
async def ended_runs(api: Api) -> AsyncIterator[None]:
    """Every run that was started is over."""
    await api.resources.store.backend.collection("runs").update_many(
        {}, {"$set": {"status": "executed", "published": True}}
    )
    yield


async def row(calls: httpx.AsyncClient, name: str) -> dict[str, Any]:
    answer = await calls.get(f"/schedules/{name}")
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


async def test_a_client_sees_the_schedules_of_its_project_by_name(
    planned: Api, client: httpx.AsyncClient
) -> None:
    body = (await client.get("/schedules")).json()
    assert [r["name"] for r in body["data"]] == ["report:broken", "report:daily", "ticker"]
    assert (body["status"], body["total_documents"]) == (True, 3)
    body = (await client.get("/schedules", params={"page": 2, "page_size": 2})).json()
    assert [r["name"] for r in body["data"]] == ["ticker"]
    assert body["pagination"] == {
        "page": 2,
        "page_size": 2,
        "total": 3,
        "total_documents": 3,
    }


async def test_a_schedule_says_what_it_starts_when_and_how_it_went(
    planned: Api, client: httpx.AsyncClient
) -> None:
    ticker = await row(client, "ticker")
    assert (ticker["state"], ticker["interval"], ticker["fired"]) == ("active", 600, 1)
    assert parsedate_to_datetime(ticker["next_execution"]) > parsedate_to_datetime(
        ticker["last_execution"]
    )
    run = await planned.resources.runs.get(ticker["last_run_id"], project="default", principal=None)
    assert run.target_name == "ticker"
    daily = await row(client, "report:daily")
    assert (daily["type"], daily["target"], daily["context"]) == (
        *("agent", "hello"),
        {"city": "Porto"},
    )
    assert (daily["cron"], daily["last_execution"], daily["error"]) == ("0 8 * * *", None, None)
    assert parsedate_to_datetime(daily["next_execution"]).hour == 8
    broken = await row(client, "report:broken")
    assert (broken["state"], broken["next_execution"]) == ("invalid", None)
    assert "no cron line" in broken["error"]
    assert await row(client, ticker["_id"]) == ticker, "by id as well"


async def test_schedules_are_searched_by_their_public_names(
    planned: Api, client: httpx.AsyncClient
) -> None:
    async def names(**body: Any) -> list[str]:
        answer = await client.post("/schedules/search", json=body)
        assert answer.status_code == 200, answer.text
        return [r["name"] for r in answer.json()["data"]]

    assert await names() == ["report:broken", "report:daily", "ticker"]
    assert await names(filters={"agent": "report", "error": None}) == ["report:daily"]
    assert await names(filters={"next_execution": {"$gt": "2020-01-01T00:00:00Z"}}) == [
        "report:daily",
        "ticker",
    ]
    assert await names(sorters=["fired", -1], page_size=1) == ["ticker"]
    assert await names(sort="-name", page=2, page_size=1) == ["report:daily"]
    assert await names(filters={"paused": True}) == []
    answer = await client.post("/schedules/search", json={"fields": ["name", "fired"]})
    assert set(answer.json()["data"][0]) == {"_id", "name", "fired"}
    for body in ({"filters": {"payload": 1}}, {"sorters": ["firing", 1]}):
        assert_problem(await client.post("/schedules/search", json=body), 422, "invalid_request")
    refused = {"filters": {"name": {"$where": "1"}}}
    assert_problem(await client.post("/schedules/search", json=refused), 422, "query_refused")


async def test_only_an_administrator_changes_and_triggers(
    planned: Api, client: httpx.AsyncClient, nobody: httpx.AsyncClient
) -> None:
    for action in ("pause", "resume", "trigger"):
        path = f"/schedules/ticker/{action}"
        assert_problem(await client.post(path), 403, "forbidden")
        assert_problem(await nobody.post(path), 401, "unauthenticated")
    assert_problem(await nobody.get("/schedules"), 401, "unauthenticated")


async def test_an_unknown_or_foreign_schedule_is_not_found(
    planned: Api, admin: httpx.AsyncClient
) -> None:
    foreign = await planned.resources.store.schedules.find("elsewhere", "other")
    assert foreign is not None
    for name in ("ghost", "other", foreign.id, "0" * 24):
        assert_problem(await admin.get(f"/schedules/{name}"), 404, "not_found")
        assert_problem(await admin.post(f"/schedules/{name}/pause"), 404, "not_found")
        assert_problem(await admin.post(f"/schedules/{name}/trigger"), 404, "not_found")


async def test_a_paused_schedule_has_no_next_time_until_it_is_resumed(
    planned: Api, admin: httpx.AsyncClient
) -> None:
    before = await row(admin, "ticker")
    answer = await admin.post("/schedules/ticker/pause")
    assert answer.json()["message"] == "schedule paused"
    assert answer.json()["data"]["state"] == "paused"
    assert answer.json()["data"]["next_execution"] is None
    assert (await admin.post("/schedules/ticker/pause")).status_code == 200
    await look(planned)
    assert (await row(admin, "ticker"))["fired"] == 1
    answer = await admin.post("/schedules/ticker/resume")
    assert (answer.json()["message"], answer.json()["data"]["paused"]) == (
        "schedule resumed",
        False,
    )
    await look(planned)
    after = await row(admin, "ticker")
    assert (after["state"], after["next_execution"]) == ("active", before["next_execution"])
    assert (await admin.post("/schedules/report:broken/resume")).json()["data"]["state"] == (
        "invalid"
    )


async def test_a_schedule_can_be_triggered_when_its_last_run_is_over(
    planned: Api, admin: httpx.AsyncClient
) -> None:
    assert_problem(await admin.post("/schedules/ticker/trigger"), 409, "schedule_busy")
    before = await row(admin, "ticker")
    async with ended_runs(planned):
        answer = await admin.post("/schedules/ticker/trigger")
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert data["run_id"] == data["agent_run_id"]
    assert data["status"] == "scheduled"
    after = await row(admin, "ticker")
    assert (after["last_run_id"], after["fired"]) == (data["run_id"], 2)
    assert after["next_execution"] == before["next_execution"]
    shown = await admin.get(f"/execution/agent-run/{data['run_id']}")
    assert shown.json()["data"]["name"] == "ticker"


async def test_a_paused_schedule_can_be_triggered_and_stays_paused(
    planned: Api, admin: httpx.AsyncClient
) -> None:
    await admin.post("/schedules/report:daily/pause")
    answer = await admin.post("/schedules/report:daily/trigger")
    run = await planned.resources.runs.get(
        answer.json()["data"]["run_id"], project="default", principal=None
    )
    assert (run.target_name, run.inputs) == ("hello", {"city": "Porto"})
    assert (await row(admin, "report:daily"))["state"] == "paused"


async def test_a_workflow_is_answered_for_under_its_own_name(
    api: Api, admin: httpx.AsyncClient
) -> None:
    jobs = [
        {"name": "w", "type": "workflow", "target": "greet", "cron": "@daily"},
        {"name": "ghost", "target": "ghost", "cron": "@daily"},
    ]
    await api.install("agent", "a", status="active", jobs=jobs)
    await look(api)
    data = (await admin.post("/schedules/a:w/trigger")).json()["data"]
    assert data["workflow_run_id"] == data["run_id"]
    problem = assert_problem(await admin.post("/schedules/a:ghost/trigger"), 404, "not_found")
    assert "not installed" in problem["detail"]
    assert (await row(admin, "a:ghost"))["state"] == "active", "and nothing is left half done"
