"""What a run's record keeps of every kind of run: results, tasks, resumes, no secrets."""

from __future__ import annotations

from typing import Any

import pytest

from machina.resources import Resources
from machina.runs.run import Checkpoint, Run
from machina.settings import Settings
from machina.worker.crew import WorkerCrew
from tests.builders import agent, call_workflow, compute, failing, step, workflow
from tests.fleet import PROJECT, ask, get_run, make_settings, types_of, watch
from tests.services import RedisServer

VAULT_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
SECRET = "correct-horse-battery"
TOKEN = "TEMP_CONTEXT_VARIABLE_SHOP"


@pytest.fixture
def settings(tmp_path: Any, redis_server: RedisServer) -> Settings:
    return make_settings(tmp_path, redis_server.url, vault_key=VAULT_KEY)


async def run(
    api: Resources, worker: WorkerCrew, kind: str, target: str, inputs: Any = None, **more: Any
) -> Run:
    request = ask("x", kind=kind, target_name=target, inputs=inputs or {}, **more)
    submitted, _ = await api.runs.submit(request)
    await worker.execute(submitted.id)
    return await get_run(api, submitted)


async def install(api: Resources, kind: Any, *definitions: dict[str, Any]) -> None:
    for definition in definitions:
        await api.store.definitions.save(PROJECT, kind, definition)


def state_of(ended: Run) -> dict[str, Any]:
    assert ended.outcome is not None
    return ended.outcome.state


async def test_a_run_keeps_the_log_of_its_tasks(api: Resources, worker: WorkerCrew) -> None:
    await install(
        api,
        "workflow",
        workflow(compute("one"), compute("two", condition="False"), failing("bad"), name="flow"),
    )
    ended = await run(api, worker, "workflow", "flow")
    assert ended.status == "failed"
    assert [(task["name"], task["status"]) for task in ended.tasks] == [
        ("one", "executed"),
        ("two", "skipped"),
        ("bad", "failed"),
    ]
    assert ended.steps[0]["_id"]
    assert ended.outcome is not None
    assert (ended.outcome.workflow, ended.outcome.task) == ("flow", "bad")


async def test_a_skill_runs_its_entry(api: Resources, worker: WorkerCrew) -> None:
    await install(api, "workflow", workflow(name="echo", outputs={"said": "$.get('text')"}))
    entry = {"name": "echo", "inputs": {"text": "$.get('q')"}, "outputs": {"a": "$.get('said')"}}
    await install(api, "skill", {"name": "helper", "workflows": [entry]})
    ended = await run(api, worker, "skill", "helper", {"q": "hi"})
    assert ended.status == "executed"
    assert state_of(ended)["a"] == "hi"
    assert (await run(api, worker, "skill", "ghost")).outcome.code == "definition_missing"  # type: ignore[union-attr]  # it has ended


async def test_a_single_task_needs_no_definition_of_its_own(
    api: Resources, worker: WorkerCrew
) -> None:
    request = {"type": "prompt", "prompt": "greet", "inputs": {"q": '[[script: text="Hello"]]'}}
    await install(api, "prompt", {"name": "greet", "instruction": "Greet"})
    ended = await run(api, worker, "task", "greet", request)
    assert ended.status == "executed"
    assert state_of(ended)["status"] is True
    assert isinstance(state_of(ended)["data"], str)
    missing = {"type": "connector", "connector": "ghost", "command": "get-x"}
    failed = await run(api, worker, "task", "ghost", missing)
    assert failed.outcome is not None
    assert failed.outcome.code == "connector_not_found"
    assert state_of(failed)["status"] is False


async def test_a_streamed_workflow_tells_about_itself(api: Resources, worker: WorkerCrew) -> None:
    flow = workflow(name="flow", title="Flow", outputs={"objects": "[1]"})
    flow["outputs"]["stream_status_message"] = "'Done'"
    await install(api, "workflow", flow)
    ended = await run(api, worker, "workflow", "flow", stream_workflows=True)
    events = await watch(api, ended)
    assert types_of(events) == [
        "start",
        "workflow_start",
        "workflow_complete",
        "status_update",
        "workflow_objects",
        "done",
    ]
    assert events[1]["metadata"]["total_workflows"] == 1


async def test_no_secret_of_the_vault_is_in_record_or_log(
    api: Resources, worker: WorkerCrew
) -> None:
    await api.store.secrets.put(PROJECT, TOKEN, SECRET)
    teller = workflow(
        compute(inputs={"k": f"${TOKEN}"}, outputs={"length": "len(context.get('k'))"}),
        failing("bad", inputs={"q": "$.get('k')"}),
        name="teller",
        outputs={"k": "'Bearer ' + $.get('k')", "length": "$.get('length')"},
        context_variables={"debugger": {"enabled": True}},
    )
    await install(api, "workflow", teller)
    outputs = {"k": "$.get('k')", "length": "$.get('length')", "content": "$.get('k')"}
    await install(api, "agent", agent(step("teller", outputs=outputs), name="actor"))
    ended = await run(api, worker, "agent", "actor", stream_workflows=True)
    assert state_of(ended)["length"] == len(SECRET)
    assert state_of(ended)["k"] == "Bearer ***"
    assert SECRET not in repr(ended)
    assert SECRET not in repr(await watch(api, ended))


async def test_templates_may_ask_the_server_itself(api: Resources, worker: WorkerCrew) -> None:
    search = call_workflow(
        "workflow-search",
        "search",
        inputs={"filters": {"name": {"$regex": "^hello-"}}, "page_size": "50"},
        outputs={"names": "sorted([w.get('name') for w in $.get('workflows', [])])"},
    )
    plan = call_workflow(
        "workflow-schedule",
        "plan",
        inputs={"name": "'admin'", "inputs": {"again": False}},
        outputs={"planned": "$.get('run_id')"},
    )
    look = call_workflow(
        "workflow-schedule-get",
        "look",
        inputs={"run_id": "$.get('planned')"},
        outputs={"state": "$.get('status')"},
    )
    names = ("names", "planned", "state")
    flow = workflow(
        search, plan, look, name="admin", outputs={key: f"$.get('{key}')" for key in names}
    )
    await install(api, "workflow", flow)
    ended = await run(api, worker, "workflow", "admin")
    state = state_of(ended)
    assert state["workflow-status"] == "executed"
    assert state["names"] == ["hello-answer", "hello-listen"]
    assert state["state"] == "scheduled"
    assert state["planned"] != ended.id


async def test_an_installed_workflow_goes_before_the_operation_of_its_name(
    api: Resources, worker: WorkerCrew
) -> None:
    ours = workflow(name="vault-search", outputs={"vault": "['ours']"})
    task = call_workflow("vault-search", outputs={"v": "$.get('vault')"})
    await install(api, "workflow", ours, workflow(task, name="flow", outputs={"v": "$.get('v')"}))
    assert state_of(await run(api, worker, "workflow", "flow"))["v"] == ["ours"]


async def test_a_new_attempt_of_a_workflow_goes_on_between_its_tasks(
    api: Resources, worker: WorkerCrew
) -> None:
    inner = workflow(name="inner")
    flow = workflow(
        compute("first", outputs={"n": "1"}),
        call_workflow("inner", "second", outputs={"n": "$.get('run_id') and context.get('n') + 1"}),
        name="flow",
        outputs={"n": "$.get('n')", "k": "$.get('k')"},
    )
    await install(api, "workflow", inner, flow)
    submitted, _ = await api.runs.submit(ask("x", kind="workflow", target_name="flow", inputs={}))
    claimed = await api.attempts.claim(submitted.id, "worker-9")
    assert claimed is not None
    await api.store.secrets.put(PROJECT, TOKEN, SECRET)
    kept = Checkpoint(0, {"n": 41, "k": {"machina:hidden": [[TOKEN]]}}, "so far ", task_index=1)
    claimed.tasks.append({"workflow": "flow", "name": "first", "status": "executed"})
    assert await api.attempts.records.save_progress(claimed, kept)
    await api.attempts.hand_back(claimed, spent=True)

    await worker.execute(submitted.id)

    ended = await get_run(api, submitted)
    assert ended.status == "executed"
    assert state_of(ended)["n"] == 42
    assert state_of(ended)["k"] == "***"
    assert [task["name"] for task in ended.tasks] == ["first", "second"]
    assert ended.may_have_repeated == [{"workflow": "flow", "task": "second"}]
    events = await watch(api, ended)
    assert events[0]["type"] == "restart"
    assert events[0]["metadata"]["content"] == "so far "


async def test_a_run_starts_over_when_the_files_of_its_scripts_are_not_here(
    api: Resources, worker: WorkerCrew
) -> None:
    flow = workflow(compute("first", outputs={"n": "1"}), name="flow", outputs={"n": "$.get('n')"})
    await install(api, "workflow", flow)
    submitted, _ = await api.runs.submit(ask("x", kind="workflow", target_name="flow", inputs={}))
    claimed = await api.attempts.claim(submitted.id, "worker-9")
    assert claimed is not None
    kept = Checkpoint(0, {"n": 41}, "said ", task_index=1, has_files=True)
    claimed.tasks.append({"workflow": "flow", "name": "first", "status": "executed"})
    assert await api.attempts.records.save_progress(claimed, kept)
    await api.attempts.hand_back(claimed, spent=True)

    await worker.execute(submitted.id)

    ended = await get_run(api, submitted)
    assert state_of(ended)["n"] == 1
    assert [task["name"] for task in ended.tasks] == ["first"]
    assert (await watch(api, ended))[0]["metadata"]["content"] == ""


async def test_a_first_attempt_repeats_nothing(api: Resources, worker: WorkerCrew) -> None:
    await install(api, "workflow", workflow(call_workflow("vault-search"), name="flow"))
    assert (await run(api, worker, "workflow", "flow")).may_have_repeated == []
