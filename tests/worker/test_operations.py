"""The five operations that templates may ask the server for, on a real store and queue."""

from __future__ import annotations

from typing import Any

import pytest

from machina.engine.tasks.subworkflow import OPERATIONS
from machina.errors import RunError
from machina.queue.names import Queue
from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.worker.operations import MAX_GENERATION, MAX_SCHEDULED, Operations
from tests.fleet import PROJECT, ask, make_settings
from tests.services import RedisServer

VAULT_KEY = "aGVsbG8gd29ybGQsIHRoaXMgaXMgYSB0ZXN0IGtleSE="


@pytest.fixture
def settings(tmp_path: Any, redis_server: RedisServer) -> Settings:
    return make_settings(tmp_path, redis_server.url, vault_key=VAULT_KEY)


async def caller(api: Resources, **fields: Any) -> Run:
    run, _ = await api.runs.submit(ask("x", **fields))
    return run


async def do(
    api: Resources, run: Run, name: str, key: str = "k", /, **inputs: Any
) -> dict[str, Any]:
    operations = Operations(api.runs, api.store.definitions, api.store.secrets)
    return await operations.of_run(run).do(name, inputs, key)


async def save(api: Resources, *names: str, project: str = PROJECT) -> None:
    for name in names:
        await api.store.definitions.save(
            project, "workflow", {"name": name, "title": name.upper(), "tasks": []}
        )


async def test_there_is_an_operation_for_every_name(api: Resources) -> None:
    operations = Operations(api.runs, api.store.definitions, api.store.secrets)
    assert operations.of_run(await caller(api)).table.keys() == OPERATIONS


# workflow-search


async def test_workflows_are_found_page_by_page(api: Resources) -> None:
    await save(api, "shop-a", "shop-b", "shop-c", "mail-a")
    await save(api, "shop-z", project="other")
    run = await caller(api)
    filters = {"name": {"$regex": "^shop-"}}
    first = await do(api, run, "workflow-search", filters=filters, page=1, page_size="2")
    second = await do(api, run, "workflow-search", filters=filters, page=2, page_size=2)
    assert (first["total"], second["total"]) == (3, 3)
    names = [found["name"] for found in first["workflows"] + second["workflows"]]
    assert sorted(names) == ["shop-a", "shop-b", "shop-c"]
    assert first["workflows"][0]["title"] == names[0].upper()


async def test_null_filters_are_dropped(api: Resources) -> None:
    await save(api, "shop-a")
    filters = {"name": "shop-a", "title": None, "status": {"$regex": None}}
    found = await do(api, await caller(api), "workflow-search", filters=filters)
    assert found["total"] == 1
    everything = await do(api, await caller(api), "workflow-search", filters=None)
    assert everything["total"] > 1


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"filters": {"$where": "1"}}, "query_refused"),
        ({"filters": {"name": {"$function": "x"}}}, "query_refused"),
        ({"filters": "name"}, "definition_invalid"),
        ({"page": 0}, "definition_invalid"),
        ({"page_size": "many"}, "definition_invalid"),
        ({"page": float("inf")}, "definition_invalid"),
    ],
)
async def test_a_search_that_cannot_be_fails_with_a_code(
    api: Resources, inputs: Any, code: str
) -> None:
    with pytest.raises(RunError) as failed:
        await do(api, await caller(api), "workflow-search", **inputs)
    assert failed.value.code == code


# workflow-schedule and workflow-schedule-get


async def test_a_scheduled_workflow_is_a_run_of_the_same_principal(api: Resources) -> None:
    await save(api, "shop-a")
    run = await caller(api, principal="client-1", may_administer=False)
    made = await do(api, run, "workflow-schedule", name="shop-a", inputs={"n": 1})
    assert made["_id"] == made["run_id"]
    scheduled = await api.runs.get(made["run_id"], project=PROJECT, principal="client-1")
    assert (scheduled.kind, scheduled.target_name) == ("workflow", "shop-a")
    assert (scheduled.queue, scheduled.inputs) == (Queue.LOW, {"n": 1})
    assert (scheduled.generation, scheduled.may_administer) == (1, False)
    shown = await do(api, run, "workflow-schedule-get", run_id=made["run_id"])
    assert (shown["status"], shown["workflow_output"]) == ("scheduled", {})


async def test_an_answer_that_was_lost_schedules_nothing_twice(api: Resources) -> None:
    await save(api, "shop-a")
    run = await caller(api)
    first = await do(api, run, "workflow-schedule", "same", name="shop-a")
    again = await do(api, run, "workflow-schedule", "same", name="shop-a")
    assert first["run_id"] == again["run_id"]


async def test_a_run_may_not_schedule_without_end(api: Resources) -> None:
    await save(api, "shop-a")
    late = await caller(api, generation=MAX_GENERATION)
    with pytest.raises(RunError) as failed:
        await do(api, late, "workflow-schedule", name="shop-a")
    assert failed.value.code == "sandbox_limit"
    operations = Operations(api.runs, api.store.definitions, api.store.secrets)
    busy = operations.of_run(await caller(api))
    for number in range(MAX_SCHEDULED):
        await busy.do("workflow-schedule", {"name": "shop-a"}, str(number))
    with pytest.raises(RunError) as failed:
        await busy.do("workflow-schedule", {"name": "shop-a"}, "last")
    assert failed.value.code == "sandbox_limit"


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "definition_invalid"),
        ({"name": "ghost"}, "definition_missing"),
        ({"name": "shop-a", "inputs": [1]}, "definition_invalid"),
    ],
)
async def test_what_cannot_be_scheduled_fails_with_a_code(
    api: Resources, inputs: Any, code: str
) -> None:
    await save(api, "shop-a")
    with pytest.raises(RunError) as failed:
        await do(api, await caller(api), "workflow-schedule", **inputs)
    assert failed.value.code == code


async def test_a_clients_run_sees_only_its_own_runs(api: Resources) -> None:
    foreign = await caller(api, principal="somebody else")
    mine = await caller(api, principal="client-1", may_administer=False)
    with pytest.raises(RunError) as failed:
        await do(api, mine, "workflow-schedule-get", run_id=foreign.id)
    assert failed.value.code == "not_found"
    admin = await caller(api)
    assert (await do(api, admin, "workflow-schedule-get", run_id=foreign.id))["name"] == "hello"


async def test_a_run_of_another_project_is_not_found(api: Resources) -> None:
    foreign = await caller(api, project="other")
    with pytest.raises(RunError) as failed:
        await do(api, await caller(api), "workflow-schedule-get", run_id=foreign.id)
    assert failed.value.code == "not_found"


# vault-search and vault-update


async def test_a_secret_is_kept_and_only_its_name_comes_back(api: Resources) -> None:
    run = await caller(api)
    name = "TEMP_CONTEXT_VARIABLE_SHOP"
    first = await do(api, run, "vault-update", name=f"${name}", value="very-secret")
    assert first == {"name": name, "created": True}
    second = await do(api, run, "vault-update", name=name, value={"json": "document"})
    assert second["created"] is False
    found = await do(api, run, "vault-search", filters={"name": {"$regex": "^TEMP_"}})
    assert [row["name"] for row in found["vault"]] == [name]
    assert found["total"] == 1
    assert "secret" not in str(found) + str(first) + str(second)
    assert await api.store.secrets.values(PROJECT) == {name: '{"json":"document"}'}


async def test_a_clients_run_may_not_change_secrets(api: Resources) -> None:
    run = await caller(api, may_administer=False)
    with pytest.raises(RunError) as failed:
        await do(api, run, "vault-update", name="X", value="y")
    assert failed.value.code == "forbidden"
    assert (await do(api, run, "vault-search"))["vault"] == []


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"name": "X"}, "definition_invalid"),
        ({"value": "x"}, "definition_invalid"),
        ({"name": "X", "value": 7}, "definition_invalid"),
        ({"name": "no name", "value": "x"}, "invalid_request"),
    ],
)
async def test_what_is_no_secret_is_not_kept(api: Resources, inputs: Any, code: str) -> None:
    with pytest.raises(RunError) as failed:
        await do(api, await caller(api), "vault-update", **inputs)
    assert failed.value.code == code
