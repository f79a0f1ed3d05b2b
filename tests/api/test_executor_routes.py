"""Executors of connectors and prompts: what clients send, what the worker gets, what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from machina.auth import Scope
from machina.queue.names import Queue
from machina.runs.run import Outcome, Run, RunStatus
from machina.worker.crew import WorkerCrew
from tests.api.harness import Api, assert_problem, busy_worker, make_settings, running_api
from tests.fleet import open_worker
from tests.services import RedisServer

ECHO = """
def echo(request_data):
    return {"status": True, "data": request_data["params"], "message": "echoed"}

def fail(request_data):
    return {"status": False, "message": "The service said no."}

def read(request_data):
    with open(request_data["params"]["file"], "rb") as file:
        content = file.read()
    return {"status": True, "data": {"bytes": len(content), "head": content[:5].decode()}}
"""
COMMANDS = [{"name": "Echo", "value": "echo"}, {"name": "Fail", "value": "fail"}]


async def install_echo(api: Api, name: str = "echo", **more: Any) -> str:
    script = {"filename": "echo.py", "filetype": "pyscript", "filecontent": ECHO}
    return await api.install("connector", name, commands=COMMANDS, **(script | more))


def gave(data: Any, message: str = "") -> Outcome:
    state = {"status": True, "data": data, "message": message}
    return Outcome(RunStatus.EXECUTED, state=state)


async def blobs_kept(api: Api) -> int:
    return await api.resources.store.backend.collection("blobs").count({})


@asynccontextmanager
async def real_worker(api: Api) -> AsyncIterator[WorkerCrew]:
    """A worker process that executes whatever is asked for."""

    async def work(crew: WorkerCrew) -> None:
        while True:
            for run in await api.resources.attempts.records.find({"status": "scheduled"}):
                await crew.execute(run.id)
            await asyncio.sleep(0.01)

    async with open_worker(api.resources.settings) as crew:
        working = asyncio.create_task(work(crew))
        try:
            yield crew
        finally:
            working.cancel()
            await asyncio.wait([working])


async def sent(api: Api, calls: httpx.AsyncClient, path: str, **request: Any) -> Run:
    """The run that a request makes."""
    async with busy_worker(api.resources, gave("x")) as claimed:
        answer = await calls.post(path, **request)
        assert answer.status_code == 200, answer.text
    (run,) = claimed
    return run


async def test_a_call_of_a_connector_reaches_the_worker_as_data(
    api: Api, client: httpx.AsyncClient
) -> None:
    id = await install_echo(api)
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (
            "echo",
            {"command": "echo", "inputs": {"a": "$.get('x')"}},
            {"command": "echo", "inputs": {"a": "$.get('x')"}, "path_attribute": {}},
        ),
        (
            id,
            {"command": "Echo", "path_attribute": {"id": 7}, "inputs": None},
            {"command": "echo", "inputs": {}, "path_attribute": {"id": 7}},
        ),
        (
            "echo",
            {"command": "other", "city": "Lisbon", "command_attribute": {"id": 8}},
            {"command": "other", "inputs": {"city": "Lisbon"}, "path_attribute": {"id": 8}},
        ),
        (
            "echo",
            {"command": "echo", "context-variables": {"echo": {"key": "$TEMP_CONTEXT_VARIABLE_X"}}},
            {"command": "echo", "inputs": {}, "path_attribute": {}},
        ),
    ]
    for target, body, expected in cases:
        run = await sent(api, client, f"/connector/executor/{target}", json=body)
        assert run.inputs == {"type": "connector", "connector": "echo", **expected}
        assert (run.kind, run.queue, run.target_name) == ("task", Queue.HIGH, "echo")
        assert run.target_id == id
        assert run.may_administer is False


async def test_a_prompt_is_executed_under_all_its_paths(
    api: Api, client: httpx.AsyncClient
) -> None:
    id = await api.install("prompt", "reply", instruction="Reply.")
    inputs = {"question": "Why?"}
    cases: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("/prompt/executor/reply", {"inputs": inputs}, {"inputs": inputs, "connector": {}}),
        (f"/prompt/execute/{id}", inputs, {"inputs": inputs, "connector": {}}),
        (
            "/prompt/execute",
            {"name": "reply", "inputs": inputs, "connector": {"name": "groq", "model": "m"}},
            {"inputs": inputs, "connector": {"name": "groq", "model": "m"}},
        ),
        (
            "/prompt/execute",
            {"prompt_id": id, "inputs": {}, "connector": "groq"},
            {"inputs": {}, "connector": {"name": "groq"}},
        ),
    ]
    for path, body, expected in cases:
        run = await sent(api, client, path, json=body)
        assert run.inputs == {"type": "prompt", "prompt": "reply", **expected}
        assert (run.kind, run.queue, run.target_id) == ("task", Queue.HIGH, id)


async def test_the_answer_is_what_the_task_gave_of_any_type(
    api: Api, client: httpx.AsyncClient
) -> None:
    await install_echo(api)
    for data in ({"rain": True}, [1, 2], "text", None, 0, False):
        async with busy_worker(api.resources, gave(data, "ok")) as claimed:
            answer = await client.post("/connector/executor/echo", json={"command": "echo"})
        body = answer.json()
        assert body.pop("meta")["run_id"] == claimed[0].id
        assert body == {"data": data, "message": "ok", "status": True}


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (
            Outcome(RunStatus.FAILED, code="connector_failed", message="No."),
            500,
            "connector_failed",
        ),
        (Outcome(RunStatus.TIMEOUT, code="timeout", message="Late."), 504, "timeout"),
        (Outcome(RunStatus.CANCELLED), 500, "cancelled"),
    ],
)
async def test_a_task_that_fails_is_an_error_that_names_its_run(
    api: Api, client: httpx.AsyncClient, outcome: Outcome, status: int, code: str
) -> None:
    await install_echo(api)
    await api.install("prompt", "reply")
    async with busy_worker(api.resources, outcome) as claimed:
        for path in ("/connector/executor/echo", "/prompt/executor/reply"):
            answer = await client.post(path, json={"command": "echo"})
            body = assert_problem(answer, status, code)
            assert body["details"]["run_id"] == claimed[-1].id


async def test_a_call_that_takes_longer_than_clients_wait_is_found_again(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = make_settings(tmp_path, redis_server.url, sync_wait_seconds=0.05)
    async with running_api(settings) as api, api.calls(api.client) as client:
        await install_echo(api)
        body = (await client.post("/connector/executor/echo", json={"command": "echo"})).json()
        run_id = body["data"]["run_id"]
        assert body == {
            "data": {"run_id": run_id, "task_id": run_id, "status": "scheduled"},
            "message": "still running",
            "meta": {"run_id": run_id, "execution_time": None},
            "status": True,
        }
        async with busy_worker(api.resources, gave({"rain": True})):
            run = await api.resources.runs.get(run_id, project="default", principal=None)
            await api.resources.runs.wait(run, 5)
        shown = (await client.get(f"/execution/agent-run/{run_id}")).json()["data"]
        assert (shown["name"], shown["status"]) == ("echo", "executed")
        assert shown["response"]["data"] == {"rain": True}


async def test_files_travel_as_blobs_and_are_gone_afterwards(
    api: Api, client: httpx.AsyncClient
) -> None:
    await install_echo(api)
    content = b"\x00\xffpdf" * 100_000
    form = {"command": "Echo", "inputs": '{"language": "en"}', "path_attribute": '{"id": 7}'}
    files = [
        ("file", ("../../etc/pass wd.pdf", content, "application/pdf")),
        ("more", ("a.txt", b"a", "text/plain")),
        ("more", (".hidden", b"b", "text/plain")),
    ]
    async with busy_worker(api.resources, gave("x")) as claimed:
        answer = await client.post("/connector/executor/echo", data=form, files=files)
        assert answer.status_code == 200, answer.text
    inputs = claimed[0].inputs
    assert inputs["command"] == "echo"
    assert inputs["path_attribute"] == {"id": 7}
    assert inputs["inputs"] == {
        "language": "en",
        "file": "upload-0-pass_wd.pdf",
        "more": ["upload-1-a.txt", "upload-2-hidden"],
    }
    assert [upload["path"] for upload in inputs["uploads"]] == [
        "upload-0-pass_wd.pdf",
        "upload-1-a.txt",
        "upload-2-hidden",
    ]
    assert await blobs_kept(api) == 0


async def test_a_file_for_a_rest_connector_stands_in_its_body(
    api: Api, client: httpx.AsyncClient
) -> None:
    await install_echo(api, "rest", filetype="restapi")
    files = {"file": ("a.txt", b"a", "text/plain")}
    form = {"command": "post-files", "inputs": '{"body": {"title": "T"}, "q": 1}'}
    run = await sent(api, client, "/connector/executor/rest", data=form, files=files)
    assert run.inputs["inputs"] == {"body": {"title": "T", "file": "@upload-0-a.txt"}, "q": 1}


async def test_a_form_without_files_is_a_body(api: Api, client: httpx.AsyncClient) -> None:
    await install_echo(api)
    parts = {"command": (None, "echo"), "city": (None, "Lisbon")}
    run = await sent(api, client, "/connector/executor/echo", files=parts)
    assert run.inputs["inputs"] == {"city": "Lisbon"}
    assert "uploads" not in run.inputs


async def test_a_form_that_is_refused_leaves_nothing_behind(
    api: Api, client: httpx.AsyncClient
) -> None:
    await install_echo(api)
    file = ("a.txt", b"a", "text/plain")
    for form, files, code in (
        ({}, [("file", file)], "invalid_request"),
        ({"command": "echo", "inputs": "{"}, [("file", file)], "invalid_request"),
        ({"command": "echo", "inputs": "[]"}, [("file", file)], "invalid_request"),
        ({"command": "echo"}, [("file", file)] * 17, "bad_request"),
        ({"command": "echo", "x": "y" * 1_100_000}, [("file", file)], "bad_request"),
    ):
        answer = await client.post("/connector/executor/echo", data=form, files=files)
        assert answer.json()["error"]["id"] == code
        assert answer.json()["status"] == "error"
    broken = await client.post(
        "/connector/executor/echo",
        content=b"nonsense",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert broken.status_code in (400, 422)
    no_boundary = await client.post(
        "/connector/executor/echo",
        content=b"nonsense",
        headers={"Content-Type": "multipart/form-data"},
    )
    assert_problem(no_boundary, 400, "bad_request")
    assert await blobs_kept(api) == 0
    assert await api.resources.attempts.records.count({}) == 0


async def test_only_forms_may_be_large_and_only_to_their_limit(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = make_settings(tmp_path, redis_server.url, max_upload_bytes=2_000_000)
    async with running_api(settings) as api, api.calls(api.client) as client:
        await install_echo(api)
        path = "/connector/executor/echo"
        body = {"command": "echo", "inputs": {"x": "y" * 1_100_000}}
        assert_problem(await client.post(path, json=body), 413, "body_too_large")
        form = {"command": "echo"}
        run = await sent(api, client, path, data=form, files={"file": b"x" * 1_900_000})
        assert run.inputs["inputs"] == {"file": "upload-0-upload"}
        files = {"file": b"x" * 2_100_000}
        too_large = await client.post(path, data=form, files=files)
        assert_problem(too_large, 413, "body_too_large")
        elsewhere = await client.post("/agent/executor/hello", data=form, files=files)
        assert_problem(elsewhere, 413, "body_too_large")
        assert await blobs_kept(api) == 0


async def test_the_same_key_and_files_mean_the_same_call(
    api: Api, client: httpx.AsyncClient
) -> None:
    await install_echo(api)
    path, headers = "/connector/executor/echo", {"Idempotency-Key": "k"}

    async def call(content: bytes) -> httpx.Response:
        files = {"file": ("a.txt", content)}
        return await client.post(path, data={"command": "echo"}, files=files, headers=headers)

    async with busy_worker(api.resources, gave("x")) as claimed:
        first, again = await call(b"a"), await call(b"a")
    assert first.json() == again.json()
    assert len(claimed) == 1
    assert_problem(await call(b"b"), 409, "idempotency_mismatch")
    assert await blobs_kept(api) == 0


async def test_the_files_of_a_repeated_call_are_not_kept_while_the_first_one_runs(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = make_settings(tmp_path, redis_server.url, sync_wait_seconds=0.05)
    async with running_api(settings) as api, api.calls(api.client) as client:
        await install_echo(api)
        for _ in range(2):
            answer = await client.post(
                "/connector/executor/echo",
                data={"command": "echo"},
                files={"file": ("a.txt", b"a")},
                headers={"Idempotency-Key": "k"},
            )
            assert answer.json()["message"] == "still running"
        assert await blobs_kept(api) == 1


async def test_what_cannot_be_called_is_refused(api: Api, client: httpx.AsyncClient) -> None:
    await install_echo(api)
    await api.install("prompt", "reply")
    for path, body, status in (
        ("/connector/executor/nobody", {"command": "echo"}, 404),
        ("/connector/executor/echo", {}, 422),
        ("/connector/executor/echo", {"command": {"$ne": 1}}, 422),
        ("/connector/executor/echo", {"command": "  "}, 422),
        ("/connector/executor/echo", {"command": "echo", "inputs": [1]}, 422),
        ("/connector/executor/echo", {"command": "echo", "path_attribute": "x"}, 422),
        ("/prompt/executor/nobody", {}, 404),
        ("/prompt/execute", {"name": "nobody"}, 404),
        ("/prompt/execute", {"inputs": {}}, 422),
        ("/prompt/executor/reply", {"inputs": "x"}, 422),
        ("/prompt/executor/reply", {"connector": [1]}, 422),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == status, (path, body)
        assert answer.json()["status"] == "error"
    assert_problem(await client.post("/connector/executor/echo", content=b"{"), 422, "invalid_body")
    assert await api.resources.attempts.records.count({}) == 0


async def test_the_connectors_of_another_project_cannot_be_called(api: Api) -> None:
    id = await install_echo(api)
    prompt = await api.install("prompt", "reply")
    stranger = await api.key(Scope.ADMIN, project="elsewhere")
    async with api.calls(stranger) as calls:
        for path in (
            *(f"/connector/executor/{target}" for target in (id, "echo")),
            *(f"/prompt/executor/{target}" for target in (prompt, "reply")),
        ):
            answer = await calls.post(path, json={"command": "echo"})
            assert_problem(answer, 404, "not_found")


async def test_a_real_worker_runs_the_command_with_its_file(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = make_settings(tmp_path, redis_server.url, scripts=True, script_sandbox="1")
    async with (
        running_api(settings) as api,
        api.calls(api.client, timeout=9) as client,
        real_worker(api),
    ):
        await install_echo(api)
        path = "/connector/executor/echo"
        inputs = {"text": "$.get('secret')", "token": "$TEMP_CONTEXT_VARIABLE_X"}
        echoed = await client.post(path, json={"command": "echo", "inputs": inputs})
        assert echoed.json()["data"] == inputs
        assert echoed.json()["message"] == "echoed"
        failed = await client.post(path, json={"command": "fail"})
        body = assert_problem(failed, 500, "connector_failed")
        assert "The service said no." in body["detail"]
        files = {"file": ("../x.txt", b"hello" + b"!" * 300_000, "text/plain")}
        read = await client.post(path, data={"command": "read"}, files=files)
        assert read.json()["data"] == {"bytes": 300_005, "head": "hello"}
        assert await blobs_kept(api) == 0


async def test_a_real_worker_asks_the_model_by_a_prompt(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = make_settings(tmp_path, redis_server.url)
    async with (
        running_api(settings) as api,
        api.calls(api.client, timeout=9) as client,
        real_worker(api),
    ):
        await api.install("prompt", "reply", type="prompt", instruction="Reply in one sentence.")
        body = {"inputs": {"question": "Why?"}, "connector": {"name": "machina-ai"}}
        answer = await client.post("/prompt/executor/reply", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] is True
        assert json.dumps(answer.json()["data"]) != "null"
