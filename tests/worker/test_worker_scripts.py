"""Script tasks through the real worker: one file system per run, events, codes, presence."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from machina.connectors.scripts import ScriptConnector
from machina.errors import MachinaError
from machina.observability.supervision import Supervisor
from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.store.definitions import Kind
from machina.worker.app import Seat
from machina.worker.crew import WorkerCrew, open_crew
from machina.worker.interrupts import Interrupt
from tests.builders import workflow
from tests.fleet import PROJECT, ask, get_run, make_settings, open_process, open_worker, watch
from tests.running import eventually
from tests.services import RedisServer

SECRET = "sk-canary-0123456789"
TOKEN = "$MACHINA_CONTEXT_VARIABLE_PRESS_KEY"
SOURCE = """
import os, tempfile

def render(request):
    handle, path = tempfile.mkstemp(suffix=".pdf")
    with os.fdopen(handle, "w") as file:
        file.write(request["params"]["title"] + " " + str(len(request["headers"]["api_key"])))
    return {"status": True, "data": {"path": path}}

def read(request):
    with open(request["path_attribute"]["path"]) as file:
        return {"status": True, "data": {"text": file.read()}}

def wait(request):
    import time
    open(os.environ["MACHINA_WORK_DIR"] + "/begun", "w").close()
    time.sleep(60)

def leak(request):
    return {"status": False, "message": "refused " + request["headers"]["api_key"]}
"""
PRESS = {"name": "press", "filetype": "pyscript", "filename": "press.py", "filecontent": SOURCE}


def call(command: str, **more: Any) -> dict[str, Any]:
    connector = {"name": "press", "command": command}
    connector |= {"command_attribute": more.pop("attribute")} if "attribute" in more else {}
    return {"type": "connector", "name": command, "connector": connector} | more


def print_flow(*tasks: dict[str, Any]) -> dict[str, Any]:
    return workflow(
        *tasks,
        outputs={"text": "$.get('text')", "path": "$.get('path')"},
        context_variables={"press": {"api_key": TOKEN}},
    )


RENDER = call("render", inputs={"title": "'Report'"}, outputs={"path": "$.get('path')"})
READ = call("read", attribute={"path": "$.get('path')"}, outputs={"text": "$.get('text')"})


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN[1:], SECRET)


async def submit(api: Resources, flow: dict[str, Any]) -> Run:
    definitions: list[tuple[Kind, dict[str, Any]]] = [("workflow", flow), ("connector", PRESS)]
    for kind, definition in definitions:
        await api.store.definitions.save(PROJECT, kind, definition)
    request = ask("", kind="workflow", target_name=flow["name"], inputs={})
    return (await api.runs.submit(request))[0]


async def test_the_scripts_of_a_run_share_files_that_go_with_the_run(
    api: Resources, worker: WorkerCrew
) -> None:
    run = await submit(api, print_flow(RENDER, READ))
    await worker.execute(run.id)
    events = await watch(api, run)
    state = events[-1]["metadata"]["state"]
    assert state["text"] == "Report 20"
    assert not Path(state["path"]).parent.exists()
    assert SECRET not in str(events)


async def test_a_failure_of_a_script_shows_no_secret_in_record_and_stream(
    api: Resources, worker: WorkerCrew
) -> None:
    run = await submit(api, print_flow(call("leak")))
    await worker.execute(run.id)
    record, events = await get_run(api, run), await watch(api, run)
    [error] = [event for event in events if event["type"] == "error"]
    assert error["metadata"]["code"] == "connector_failed"
    assert "refused ***" in error["content"]
    assert SECRET not in f"{record} {events}"


async def test_a_cancelled_run_ends_its_script_at_once(
    api: Resources, worker: WorkerCrew, settings: Settings
) -> None:
    run = await submit(api, print_flow(call("wait")))
    execution = asyncio.create_task(worker.execute(run.id))
    marker = Path(settings.data_dir or "") / "work" / "runs" / run.id / "begun"
    await eventually(marker.exists)
    began = asyncio.get_running_loop().time()
    await api.runs.cancel(await get_run(api, run))
    worker._executions.cancel(run.id)
    await execution
    assert asyncio.get_running_loop().time() - began < 2
    assert (await get_run(api, run)).status == "cancelled"


async def test_a_run_handed_back_leaves_no_process_and_keeps_its_files(
    api: Resources, worker: WorkerCrew, settings: Settings
) -> None:
    flow = print_flow(RENDER, call("wait"))
    flow["tasks"][1]["connector"]["name"] = "press2"  # a child of its own: the first one is idle
    other = PRESS | {"name": "press2", "filecontent": SOURCE + "# another"}
    await api.store.definitions.save(PROJECT, "connector", other)
    run = await submit(api, flow)
    execution = asyncio.create_task(worker.execute(run.id))
    directory = Path(settings.data_dir or "") / "work" / "runs" / run.id
    await eventually((directory / "begun").exists)
    scripts = worker._connectors._types["pyscript"]
    assert isinstance(scripts, ScriptConnector)
    assert len(scripts._children) == 2
    worker.interrupt_all(Interrupt.DRAIN)
    await execution
    assert (await get_run(api, run)).status == "scheduled"
    assert len(scripts._children) == 0
    assert list(directory.glob("**/*.pdf"))


@pytest.fixture
def production(tmp_path: Path, redis_server: RedisServer) -> Settings:
    return make_settings(tmp_path, redis_server.url, environment="production")


async def test_production_runs_no_script_until_it_is_told(production: Settings) -> None:
    async with open_process(production) as api, open_worker(production) as worker:
        run = await submit(api, print_flow(RENDER))
        await worker.execute(run.id)
        events = await watch(api, run)
    [error] = [event for event in events if event["type"] == "error"]
    assert error["metadata"]["code"] == "scripts_disabled"
    assert "MACHINA_SCRIPTS=on" in error["content"]


async def test_the_row_of_a_worker_says_how_scripts_are_shut_in(settings: Settings) -> None:
    seat = Seat(settings, lambda: True, Supervisor())
    async with open_crew(seat):
        assert seat.presence["scripts"]["level"] in (1, 2, 3)


async def test_a_worker_does_not_start_with_a_level_that_is_not_to_be_had(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = settings.model_copy(update={"script_sandbox": "3"})
    with pytest.raises(MachinaError, match="bubblewrap"):
        async with open_crew(Seat(told, lambda: True, Supervisor())):
            pass
