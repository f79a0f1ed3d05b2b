"""Coming back to a stream: from where, as whom, and what is answered when it cannot be."""

from __future__ import annotations

import asyncio

import httpx

from machina.auth import Scope
from machina.runs.run import Outcome, RunStatus
from tests.api.harness import HELLO, Api, assert_problem, busy_worker, ids, lines

UNKNOWN = "0" * 24


async def finished_run(api: Api, client: httpx.AsyncClient, *outcomes: Outcome) -> str:
    async with busy_worker(api.resources, *outcomes):
        answer = await client.post("/agent/stream/hello", json=HELLO)
    run_id: str = answer.headers["x-run-id"]
    return run_id


async def test_a_finished_run_is_replayed_from_its_beginning(
    api: Api, client: httpx.AsyncClient
) -> None:
    run_id = await finished_run(api, client)
    answer = await client.get(f"/execution/agent-run/{run_id}/stream")
    assert answer.status_code == 200
    assert ids(answer.content) == ["1-1", "1-2", "1-3", "1-4", "1-5"]
    assert answer.headers["content-location"] == f"/execution/agent-run/{run_id}/stream"
    assert answer.headers["x-run-id"] == run_id


async def test_a_stream_goes_on_after_every_event(api: Api, client: httpx.AsyncClient) -> None:
    path = f"/execution/agent-run/{await finished_run(api, client)}/stream"
    for cut in range(1, 5):
        query, header = {"after": f"1-{cut}"}, {"Last-Event-ID": f"1-{cut}"}
        by_header = await client.get(path, headers=header)
        by_query = await client.get(path, params=query)
        by_both = await client.get(path, params=query, headers=header)
        assert ids(by_header.content) == [f"1-{seq}" for seq in range(cut + 1, 6)]
        assert by_header.content == by_query.content == by_both.content


async def test_header_and_query_that_disagree_are_refused(
    api: Api, client: httpx.AsyncClient
) -> None:
    path = f"/execution/agent-run/{await finished_run(api, client)}/stream"
    answer = await client.get(path, params={"after": "1-1"}, headers={"Last-Event-ID": "1-2"})
    assert_problem(answer, 422, "invalid_request")


async def test_an_empty_id_means_the_beginning(api: Api, client: httpx.AsyncClient) -> None:
    path = f"/execution/agent-run/{await finished_run(api, client)}/stream?after="
    answer = await client.get(path, headers={"Last-Event-ID": ""})
    assert ids(answer.content)[0] == "1-1"


MALFORMED = ["17", "-1-1", "1--1", "1-1 ", "1-1\u0660", "$", "0x1-1", "1" * 10 + "-1", "1-1\x0b"]


async def test_a_malformed_id_is_400(client: httpx.AsyncClient) -> None:
    path = f"/execution/agent-run/{UNKNOWN}/stream"
    for malformed in [*MALFORMED, "9" * 5_000]:
        answer = await client.get(path, params={"after": malformed})
        assert_problem(answer, 400, "bad_resume_id")


async def test_a_client_that_has_everything_is_told_so(api: Api, client: httpx.AsyncClient) -> None:
    path = f"/execution/agent-run/{await finished_run(api, client)}/stream?after=1-5"
    ndjson = await client.get(path)
    sse = await client.get(path, headers={"Accept": "text/event-stream"})
    assert (ndjson.status_code, ndjson.content) == (200, b"")
    assert (sse.status_code, sse.content) == (204, b"")
    assert ndjson.headers["content-type"] == "application/x-ndjson"


async def test_an_id_ahead_of_the_log_is_409_and_names_the_newest(
    api: Api, client: httpx.AsyncClient
) -> None:
    path = f"/execution/agent-run/{await finished_run(api, client)}/stream"
    body = assert_problem(await client.get(f"{path}?after=1-6"), 409, "resume_ahead")
    assert body["details"]["newest"] == "1-5"


async def test_an_expired_log_is_410_with_the_place_of_the_result(
    api: Api, client: httpx.AsyncClient
) -> None:
    run_id = await finished_run(api, client)
    await api.resources.log_client.flushall()
    body = assert_problem(
        await client.get(f"/execution/agent-run/{run_id}/stream"), 410, "stream_expired"
    )
    assert body["details"]["run"] == f"/execution/agent-run/{run_id}"
    result = await client.get(body["details"]["run"])
    assert result.json()["data"]["response"]["content"] == "Hello there"


async def test_an_unknown_run_is_404(client: httpx.AsyncClient) -> None:
    for run_id in (UNKNOWN, "x", "0" * 23 + "g", "0" * 25, "0" * 5_000, "%0a"):
        for kind in ("agent", "workflow"):
            answer = await client.get(f"/execution/{kind}-run/{run_id}/stream")
            body = assert_problem(answer, 404, "not_found")
            assert len(body["detail"]) < 200


async def test_a_foreign_run_looks_like_an_unknown_one(api: Api, client: httpx.AsyncClient) -> None:
    run_id = await finished_run(api, client)
    neighbour = await api.key()
    stranger = await api.key(Scope.ADMIN, project="elsewhere")
    for key in (neighbour, stranger):
        async with api.calls(key) as calls:
            for path in ("", "/stream"):
                foreign = await calls.get(f"/execution/agent-run/{run_id}{path}")
                unknown = await calls.get(f"/execution/agent-run/{UNKNOWN}{path}")
                said = assert_problem(foreign, 404, "not_found")["detail"]
                assert said == assert_problem(unknown, 404, "not_found")["detail"].replace(
                    UNKNOWN, run_id
                )


async def test_an_administrator_sees_the_runs_of_the_project(
    api: Api, client: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    run_id = await finished_run(api, client)
    answer = await admin.get(f"/execution/agent-run/{run_id}/stream")
    assert lines(answer.content)[-1]["type"] == "done"


async def test_the_workflow_twin_knows_runs_of_workflows_only(
    api: Api, client: httpx.AsyncClient
) -> None:
    agent_run = await finished_run(api, client)
    async with busy_worker(api.resources):
        answer = await client.post("/workflow/stream/greet", json={})
    workflow_run = answer.headers["x-run-id"]
    path = "/execution/workflow-run/{}/stream"
    assert_problem(await client.get(path.format(agent_run)), 404, "not_found")
    assert (await client.get(path.format(workflow_run))).content == answer.content
    both = await client.get(f"/execution/agent-run/{workflow_run}/stream")
    assert both.content == answer.content


async def test_viewers_are_bounded_apart_from_starts(api: Api, client: httpx.AsyncClient) -> None:
    path = f"/execution/agent-run/{await finished_run(api, client)}/stream"
    admission = api.admission
    permits = [await admission.gate.acquire() for _ in range(admission.gate.capacity)]
    assert (await client.get(path)).status_code == 200
    admission.viewers = admission.max_viewers
    answer = await client.get(path)
    assert_problem(answer, 503, "too_many_viewers")
    assert len(permits) == admission.gate.active
    assert admission.viewers == admission.max_viewers


async def test_a_draining_process_opens_no_streams_but_answers_the_rest(
    api: Api, client: httpx.AsyncClient
) -> None:
    run_id = await finished_run(api, client)
    api.resources.draining = True
    assert_problem(await client.get(f"/execution/agent-run/{run_id}/stream"), 503, "draining")
    assert (await client.get(f"/execution/agent-run/{run_id}")).status_code == 200


async def test_two_clients_see_the_same_bytes(api: Api, client: httpx.AsyncClient) -> None:
    cancelled = Outcome(RunStatus.CANCELLED)
    path = f"/execution/agent-run/{await finished_run(api, client, cancelled)}/stream"
    first, second = await asyncio.gather(client.get(path), client.get(path))
    assert first.content == second.content
    assert lines(first.content)[-1]["metadata"]["status"] == "cancelled"
