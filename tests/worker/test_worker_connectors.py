"""Connector tasks through the real worker: definitions in the store, a server on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.store.definitions import Kind
from machina.worker.crew import WorkerCrew
from tests.builders import workflow
from tests.egress.server import Answer, Server, ok
from tests.fleet import PROJECT, ask, get_run, make_settings, open_process, open_worker, watch
from tests.services import RedisServer

SECRET = "sk-canary-0123456789"
TOKEN = "$MACHINA_CONTEXT_VARIABLE_SHOP_KEY"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as server:
        yield server


@pytest.fixture
def closed(tmp_path: Path, redis_server: RedisServer) -> Settings:
    return make_settings(tmp_path, redis_server.url, environment="production")


def shop(server: Server) -> dict[str, Any]:
    """An installed connector with one operation."""
    spec = {
        "openapi": "3.0.0",
        "servers": [{"url": server.url("/v1")}],
        "components": {"securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}}},
        "paths": {"/orders/{order_id}/items.json": {"get": {}}},
    }
    return {
        "name": "shop",
        "filetype": "restapi",
        "filename": "shop.json",
        "filecontent": json.dumps(spec),
    }


def list_items() -> dict[str, Any]:
    return {
        "type": "connector",
        "name": "list-items",
        "connector": {
            "name": "shop",
            "command": "get-orders/{order_id}/items.json",
            "command_attribute": {"order_id": "$.get('order')"},
        },
        "inputs": {"page": "2"},
        "outputs": {"names": "[i.get('name') for i in $.get('items', [])]"},
    }


def order_flow() -> dict[str, Any]:
    return workflow(
        list_items(),
        name="order-items",
        inputs={"order": "$.get('order')"},
        outputs={"names": "$.get('names')"},
        context_variables={"shop": {"bearerAuth": TOKEN}},
    )


async def run(
    api: Resources, worker: WorkerCrew, flow: dict[str, Any], *connectors: dict[str, Any]
) -> tuple[Run, list[dict[str, Any]]]:
    """The record and the events of a run of a workflow."""
    definitions: list[tuple[Kind, dict[str, Any]]] = [("workflow", flow)]
    definitions += [("connector", connector) for connector in connectors]
    for kind, definition in definitions:
        await api.store.definitions.save(PROJECT, kind, definition)
    request = ask("", kind="workflow", target_name=flow["name"], inputs={"order": "ns:7"})
    submitted, _ = await api.runs.submit(request)
    await worker.execute(submitted.id)
    return await get_run(api, submitted), await watch(api, submitted)


async def test_a_rest_connector_answers_a_workflow(
    api: Resources, worker: WorkerCrew, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN[1:], SECRET)
    server.answer = lambda seen: ok({"items": [{"name": "tea"}, {"name": "milk"}]})

    record, events = await run(api, worker, order_flow(), shop(server))

    assert record.status == "executed"
    assert events[-1]["metadata"]["state"]["names"] == ["tea", "milk"]
    assert server.last.target == "/v1/orders/ns:7/items.json?page=2"
    assert server.last.headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in f"{record} {events}"


async def test_a_failure_says_which_secret_is_missing(
    api: Resources, worker: WorkerCrew, server: Server
) -> None:
    server.answer = lambda seen: Answer(401, b"who are you?")

    record, events = await run(api, worker, order_flow(), shop(server))

    assert record.status == "failed"
    assert events[-1]["type"] == "done"
    [error] = [event for event in events if event["type"] == "error"]
    assert error["metadata"]["code"] == "secret_missing"
    assert "HTTP 401: who are you?" in error["content"]
    assert TOKEN[1:] in error["content"]


async def test_the_built_in_http_needs_no_definition(
    api: Resources, worker: WorkerCrew, server: Server
) -> None:
    task = list_items() | {
        "connector": {"name": "http", "command": "post", "url": server.url("/hook")},
        "inputs": {"text": "'hi'"},
        "outputs": {"names": "$.get('fine')"},
    }

    _, events = await run(api, worker, workflow(task, outputs={"names": "$.get('names')"}))

    assert events[-1]["metadata"]["state"]["names"] is True
    assert server.last.json == {"text": "hi"}


async def test_production_does_not_reach_loopback(closed: Settings, server: Server) -> None:
    async with open_process(closed) as api, open_worker(closed) as worker:
        record, events = await run(api, worker, order_flow(), shop(server))

    assert record.status == "failed"
    [error] = [event for event in events if event["type"] == "error"]
    assert error["metadata"]["code"] == "egress_refused"
    assert server.connections == 0


async def test_a_connector_that_is_not_installed_fails_the_run(
    api: Resources, worker: WorkerCrew
) -> None:
    record, events = await run(api, worker, order_flow())

    assert record.status == "failed"
    [error] = [event for event in events if event["type"] == "error"]
    assert error["metadata"]["code"] == "connector_not_found"
