"""The API's description: complete, true to what is sent, and the same every time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from machina.api.app import create_app
from machina.api.openapi import machina_openapi
from machina.api.security import OWN_SECRET_PATHS, PUBLIC_PATHS
from machina.events import EVENT_TYPES, EventType
from machina.resources import open_resources
from machina.runs.run import Outcome, RunStatus
from machina.settings import Settings
from tests.api.harness import HELLO, Api, busy_worker, lines, make_settings, running_api
from tests.services import RedisServer


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return machina_openapi(create_app(Settings(), partial(open_resources, process="api")))


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_the_document_is_the_same_byte_for_byte_every_time(document: dict[str, Any]) -> None:
    again = machina_openapi(create_app(Settings(), partial(open_resources, process="api")))
    assert json.dumps(again) == json.dumps(document)


def test_every_operation_has_a_summary_a_description_and_an_example_answer(
    document: dict[str, Any],
) -> None:
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where
        success = min(status for status in operation["responses"] if status != "204")
        assert success in ("200", "201"), where
        for content in operation["responses"][success]["content"].values():
            assert "example" in content, where


def test_every_operation_that_reads_a_body_shows_one(document: dict[str, Any]) -> None:
    reading = {
        (path, method)
        for path, method, operation in operations(document)
        if "requestBody" in operation
    }
    writing = {
        (path, method) for path, method, _ in operations(document) if method in ("post", "put")
    }
    without = (
        {"/system/circuit-breaker/reset/{name}"}
        | {f"/execution/{kind}-run/{{run_id}}/cancel" for kind in ("agent", "workflow")}
        | {f"/schedules/{{schedule}}/{verb}" for verb in ("pause", "resume", "trigger")}
    )
    assert reading == {(path, method) for path, method in writing if path not in without}
    for _, _, operation in operations(document):
        if "requestBody" in operation:
            content = next(iter(operation["requestBody"]["content"].values()))
            assert content["example"]


def test_every_refusal_is_a_problem_with_an_example_per_code(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        closed = path not in PUBLIC_PATHS
        assert ("401" in operation["responses"]) == closed, path
        for status, answer in operation["responses"].items():
            if int(status) < 400:
                continue
            (media_type,) = answer["content"]
            assert media_type == "application/problem+json", f"{method} {path} {status}"
            content = answer["content"][media_type]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code, example in content["examples"].items():
                assert example["value"]["error"]["id"] == code
                assert example["value"]["error"]["code"] == int(status)
                assert example["value"]["status"] == "error"
            assert ("Retry-After" in answer.get("headers", {})) == (status in ("429", "503"))


def test_streams_are_described_in_both_formats_with_the_event_schema(
    document: dict[str, Any],
) -> None:
    streams = [path for path, _, _ in operations(document) if "stream" in path.split("/")]
    assert len(streams) == 4
    for path in streams:
        (operation,) = document["paths"][path].values()
        answer = operation["responses"]["200"]
        assert set(answer["content"]) == {"application/x-ndjson", "text/event-stream"}
        assert {"X-Run-Id", "X-Task-ID", "Content-Location"} <= set(answer["headers"])
        for content in answer["content"].values():
            assert content["schema"] == {"$ref": "#/components/schemas/Event"}
        example = answer["content"]["application/x-ndjson"]["example"]
        events = [json.loads(line) for line in example.splitlines()]
        assert [event["type"] for event in events] == ["start", "content", "content", "done"]
        frames = answer["content"]["text/event-stream"]["example"]
        assert [json.loads(data) for data in re.findall(r"^data: (.*)$", frames, re.M)] == events
        assert {"204", "400", "404", "409"} <= set(operation["responses"])
    assert "410" in document["paths"]["/execution/agent-run/{run_id}/stream"]["get"]["responses"]
    assert "429" in document["paths"]["/agent/stream/{agent}"]["post"]["responses"]


def test_the_event_schema_knows_exactly_the_vocabulary(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    event = schemas["Event"]
    mapping = event["discriminator"]["mapping"]
    assert tuple(mapping) == EVENT_TYPES == get_args(EventType)
    assert len(event["oneOf"]) == 11
    for type, reference in mapping.items():
        schema = schemas[reference.rsplit("/", 1)[1]]
        assert schema["properties"]["type"] == {"const": type}
        assert schema["required"] == ["id", "type", "content", "metadata"]
        assert schema["description"]


async def test_what_a_stream_says_is_in_the_schema_of_its_type(
    api: Api, client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    schemas = document["components"]["schemas"]
    mapping = schemas["Event"]["discriminator"]["mapping"]
    failed = Outcome(RunStatus.FAILED, code="task_failed", message="No.")
    async with busy_worker(api.resources, Outcome(RunStatus.EXECUTED, content="x"), failed):
        bodies = [await client.post("/agent/stream/hello", json=HELLO) for _ in range(2)]
    seen = set()
    for event in [event for body in bodies for event in lines(body.content)]:
        schema = schemas[mapping[event["type"]].rsplit("/", 1)[1]]
        assert re.fullmatch(schema["properties"]["id"]["pattern"], event["id"])
        known = set(schema["properties"]["metadata"]["properties"])
        if event["type"] != "done":  # which also says what failed
            assert set(event["metadata"]) <= known, event
        seen.add(event["type"])
    assert seen == {"start", "content", "error", "done"}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        part: Any = document
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]
        assert part


def test_keys_are_described_and_public_paths_need_none(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["Bearer"]["scheme"] == "bearer"
    assert schemes["ApiToken"]["name"] == "X-Api-Token"
    assert document["security"] == [{"Bearer": []}, {"ApiToken": []}]
    public = {
        path for path, _, operation in operations(document) if operation.get("security") == []
    }
    assert public == (PUBLIC_PATHS | OWN_SECRET_PATHS) - {"/docs", "/openapi.json"}


async def test_the_document_and_the_page_are_served(
    api: Api, nobody: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    served = await nobody.get("/openapi.json")
    assert served.json() == document
    page = await nobody.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text


async def test_a_setting_switches_the_documentation_off(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = make_settings(tmp_path, redis_server.url, docs=False)
    async with running_api(settings) as api, api.calls(api.admin) as calls:
        for path in ("/docs", "/openapi.json", "/redoc"):
            assert (await calls.get(path)).status_code == 404


def test_the_version_is_the_one_of_the_setting() -> None:
    settings = Settings(machina_client_version="9.9.9")
    app = create_app(settings, partial(open_resources, process="api"))
    assert machina_openapi(app)["info"]["version"] == "9.9.9"


def test_importing_the_api_loads_neither_the_engine_nor_anything_that_patches_the_server() -> None:
    script = (
        "import sys, machina.api.app, uvicorn.server as s\n"
        "unwanted = ('machina.engine', 'machina.connectors', 'machina.worker', 'sse_starlette')\n"
        "assert not [name for name in unwanted if name in sys.modules], sys.modules.keys()\n"
        "assert s.Server.handle_exit.__module__ == 'uvicorn.server'\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
