"""Starting streams: headers, bodies, formats, and the order in which a start is refused."""

from __future__ import annotations

import asyncio
import json

import httpx

from machina.breaker import State
from machina.events import EVENT_TYPES
from machina.queue.names import Queue
from machina.runs.run import Outcome, RunStatus
from tests.api.harness import HELLO, Api, assert_problem, busy_worker, ids, lines


async def test_a_started_stream_says_everything_from_start_to_done(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with busy_worker(api.resources) as claimed:
        answer = await client.post("/agent/stream/hello", json=HELLO)
    (run,) = claimed
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["x-run-id"] == answer.headers["x-task-id"] == run.id
    assert answer.headers["content-location"] == f"/execution/agent-run/{run.id}/stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    events = lines(answer.content)
    assert [event["type"] for event in events] == [
        "start",
        "content",
        "content",
        "content",
        "done",
    ]
    assert [event["id"] for event in events] == ["1-1", "1-2", "1-3", "1-4", "1-5"]
    assert events[0]["metadata"]["task_id"] == run.id
    assert events[-1]["metadata"]["status"] == "executed"
    assert {event["type"] for event in events} <= set(EVENT_TYPES)
    assert (run.queue, run.streamed, run.kind) == (Queue.STREAMING, True, "agent")


async def test_the_stream_is_sse_when_the_client_accepts_it(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with busy_worker(api.resources):
        answer = await client.post(
            "/agent/stream/hello", json=HELLO, headers={"Accept": "text/event-stream"}
        )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (
        "charset" not in answer.headers["content-type"] or "utf-8" in answer.headers["content-type"]
    )
    first = answer.text.split("\n\n")[0].split("\n")
    assert first[:2] == ["id: 1-1", "event: start"]
    assert json.loads(first[2].removeprefix("data: "))["type"] == "start"
    assert answer.text.endswith("\n\n")


async def test_the_format_in_the_query_wins(api: Api, client: httpx.AsyncClient) -> None:
    types = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}
    async with busy_worker(api.resources):
        for format, other in (("sse", "ndjson"), ("ndjson", "sse")):
            answer = await client.post(
                f"/agent/stream/hello?format={format}", json=HELLO, headers={"Accept": types[other]}
            )
            assert answer.headers["content-type"].startswith(types[format])


async def test_an_unknown_format_starts_nothing(api: Api, client: httpx.AsyncClient) -> None:
    answer = await client.post("/agent/stream/hello?format=xml", json=HELLO)
    body = assert_problem(answer, 422, "invalid_request")
    assert body["error"]["field"] == "format"
    assert await api.resources.attempts.records.count({}) == 0


async def test_an_agent_can_be_named_by_id(api: Api, client: httpx.AsyncClient) -> None:
    agent_id = await api.install("agent", "sport:Event")
    async with busy_worker(api.resources) as claimed:
        await client.post(f"/agent/stream/{agent_id}", json=HELLO)
        await client.post("/agent/stream/sport:Event", json=HELLO)
    assert {(run.target_id, run.target_name) for run in claimed} == {(agent_id, "sport:Event")}


async def test_a_workflow_streams_under_its_own_location(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with busy_worker(api.resources) as claimed:
        answer = await client.post(
            "/workflow/stream/greet", json={"context-workflow": {"city": "Lisbon"}}
        )
    (run,) = claimed
    assert answer.headers["content-location"] == f"/execution/workflow-run/{run.id}/stream"
    assert (run.kind, run.inputs) == ("workflow", {"city": "Lisbon"})


async def test_an_unknown_target_is_404(client: httpx.AsyncClient) -> None:
    for path in ("/agent/stream/nobody", "/workflow/stream/nothing"):
        assert_problem(await client.post(path, json=HELLO), 404, "not_found")


async def test_an_agent_of_another_project_is_404(api: Api) -> None:
    foreign = await api.key(project="other")
    async with api.calls(foreign) as calls:
        assert_problem(await calls.post("/agent/stream/hello", json=HELLO), 404, "not_found")


async def test_the_failure_of_a_run_is_told_inside_the_stream(
    api: Api, client: httpx.AsyncClient
) -> None:
    failed = Outcome(RunStatus.FAILED, code="task_failed", message="The model is away.")
    async with busy_worker(api.resources, failed):
        answer = await client.post("/agent/stream/hello", json=HELLO)
    assert answer.status_code == 200
    error, done = lines(answer.content)[-2:]
    assert (error["type"], error["metadata"]["code"]) == ("error", "task_failed")
    assert (done["type"], done["metadata"]["status"]) == ("done", "failed")


async def test_the_same_key_and_body_join_the_same_run_from_its_beginning(
    api: Api, client: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": "order 17"}
    async with busy_worker(api.resources) as claimed:
        first = await client.post("/agent/stream/hello", json=HELLO, headers=headers)
        again = await client.post(
            "/agent/stream/hello", json=HELLO | {"stream": True}, headers=headers
        )
    assert len(claimed) == 1
    assert first.content == again.content
    assert first.headers["x-run-id"] == again.headers["x-run-id"]


async def test_a_join_goes_on_after_the_last_event_id(api: Api, client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    async with busy_worker(api.resources):
        await client.post("/agent/stream/hello", json=HELLO, headers=headers)
        rest = await client.post(
            "/agent/stream/hello", json=HELLO, headers=headers | {"Last-Event-ID": "1-3"}
        )
    assert ids(rest.content) == ["1-4", "1-5"]


async def test_the_last_event_id_means_nothing_for_a_run_that_is_new(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with busy_worker(api.resources):
        answer = await client.post(
            "/agent/stream/hello", json=HELLO, headers={"Last-Event-ID": "7-7"}
        )
    assert ids(answer.content)[0] == "1-1"


async def test_the_same_key_with_another_body_is_409(api: Api, client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    async with busy_worker(api.resources):
        await client.post("/agent/stream/hello", json=HELLO, headers=headers)
    answer = await client.post("/agent/stream/hello", json={"messages": []}, headers=headers)
    body = assert_problem(answer, 409, "idempotency_mismatch")
    assert body["error"]["field"] == "Idempotency-Key"


async def test_a_key_belongs_to_its_caller_route_and_target(
    api: Api, client: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await api.install("agent", "other")
    headers = {"Idempotency-Key": "k"}
    async with busy_worker(api.resources) as claimed:
        await client.post("/agent/stream/hello", json=HELLO, headers=headers)
        await admin.post("/agent/stream/hello", json=HELLO, headers=headers)
        await client.post("/agent/stream/other", json=HELLO, headers=headers)
        await client.post("/agent/executor/hello", json=HELLO, headers=headers)
        await client.post("/agent/execute/hello", json=HELLO, headers=headers)  # the same as before
    assert len(claimed) == 4


async def test_requests_at_once_with_one_key_make_one_run(
    api: Api, client: httpx.AsyncClient
) -> None:
    async with busy_worker(api.resources) as claimed:
        answers = await asyncio.gather(
            *(
                client.post("/agent/stream/hello", json=HELLO, headers={"Idempotency-Key": "k"})
                for _ in range(8)
            )
        )
    assert len(claimed) == 1
    assert {answer.content for answer in answers} == {answers[0].content}


async def test_an_unusable_idempotency_key_is_refused(api: Api, client: httpx.AsyncClient) -> None:
    for key in (b"", b"x" * 256, b"tab\there", "caf\u00e9".encode("latin-1")):
        answer = await client.post(
            "/agent/stream/hello", json=HELLO, headers=[(b"Idempotency-Key", key)]
        )
        assert_problem(answer, 422, "invalid_request")
    assert await api.resources.attempts.records.count({}) == 0


async def test_one_stream_too_many_is_429_and_uses_up_nothing(
    api: Api, client: httpx.AsyncClient
) -> None:
    admission = api.admission
    permits = [await admission.gate.acquire() for _ in range(admission.gate.capacity)]
    headers = {"Idempotency-Key": "k"}
    refused = await client.post("/agent/stream/hello", json=HELLO, headers=headers)
    body = assert_problem(refused, 429, "too_many_streams")
    assert body["error"]["retryable"] is True
    assert int(refused.headers["retry-after"]) >= 1
    assert await api.resources.attempts.records.count({}) == 0
    assert admission.viewers == 0
    permits.pop().release()
    async with busy_worker(api.resources):
        accepted = await client.post("/agent/stream/hello", json=HELLO, headers=headers)
    assert accepted.status_code == 200
    assert admission.gate.active == len(permits)


async def test_a_join_is_refused_neither_by_the_gate_nor_by_the_breaker(
    api: Api, client: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": "k"}
    async with busy_worker(api.resources):
        first = await client.post("/agent/stream/hello", json=HELLO, headers=headers)
    admission = api.admission
    permits = [await admission.gate.acquire() for _ in range(admission.gate.capacity)]
    await open_the_breaker(api)
    again = await client.post("/agent/stream/hello", json=HELLO, headers=headers)
    assert again.content == first.content
    assert len(permits) == admission.gate.active


async def test_an_open_breaker_is_503_with_a_time_to_wait(
    api: Api, client: httpx.AsyncClient
) -> None:
    await open_the_breaker(api)
    answer = await client.post("/agent/stream/hello", json=HELLO)
    assert_problem(answer, 503, "breaker_open")
    assert 1 <= int(answer.headers["retry-after"]) <= 15
    missing = await client.post("/agent/stream/nobody", json=HELLO)
    assert_problem(missing, 404, "not_found")


async def test_one_viewer_too_many_is_503(api: Api, client: httpx.AsyncClient) -> None:
    api.admission.viewers = api.admission.max_viewers
    answer = await client.post("/agent/stream/hello", json=HELLO)
    assert_problem(answer, 503, "too_many_viewers")
    assert answer.headers["retry-after"]
    assert api.admission.gate.active == 0


async def test_a_draining_process_starts_nothing(api: Api, client: httpx.AsyncClient) -> None:
    api.resources.draining = True
    for path in ("/agent/stream/hello", "/agent/executor/hello", "/workflow/schedule/greet"):
        answer = await client.post(path, json={})
        assert_problem(answer, 503, "draining")
        assert answer.headers["retry-after"] == "1"


async def open_the_breaker(api: Api) -> None:
    breaker = api.admission.breaker
    for _ in range(breaker.snapshot().threshold):
        breaker.failure(await breaker.admit())
        await breaker.settle()
    assert breaker.state is State.OPEN
