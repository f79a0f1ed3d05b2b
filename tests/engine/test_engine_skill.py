"""Running a skill: which entry, what it gets, what comes back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from machina.engine import RunResult, run_skill
from machina.events import encode_json
from tests.builders import World, agent, compute, failing, step, workflow

ECHO = workflow(
    compute(outputs={"said": "$.get('text')"}),
    name="echo",
    outputs={"said": "$.get('said')", "all": "$.get('text')", "objects": "[1]"},
)
OTHER = workflow(name="other", outputs={"other": "True"})
BROKEN = workflow(failing("bad"), name="broken", outputs={"half": "1"})
ACTOR = agent(
    step("echo", inputs={"text": "$.get('text')"}, outputs={"response_text": "$.get('said')"}),
    step("other", outputs={"other": "$.get('other')"}),
    name="actor",
)


def skill(**fields: Any) -> dict[str, Any]:
    return {"name": "helper", "title": "Helper", **fields}


def made() -> World:
    world = World(ECHO, OTHER, BROKEN)
    world.definitions["agent", "actor"] = ACTOR
    return world


async def run(definition: Any, payload: Any = None, **more: Any) -> RunResult:
    return await run_skill(definition, payload or {}, made().context(), **more)


async def test_an_entry_gets_evaluated_inputs_and_its_outputs_are_mapped() -> None:
    entry = {
        "name": "echo",
        "description": "Echo",
        "inputs": {"text": "$.get('q') + '!'", "bad": "len(None)"},
        "outputs": {"answer": "$.get('said')", "asked": "context.get('q')", "none": "$.get('x')"},
    }
    result = await run(skill(workflows=[entry]), {"q": "hi"})
    assert result.status == "executed"
    assert result.state == {
        "workflow-status": "executed",
        "answer": "hi!",
        "asked": "hi",
        "none": None,
    }
    assert result.objects == [1]


async def test_an_entry_without_inputs_and_outputs_passes_everything_through() -> None:
    result = await run(skill(workflows=[{"name": "echo"}]), {"text": "x"})
    assert (result.state["said"], result.state["all"]) == ("x", "x")


@pytest.mark.parametrize("word", ["entry-point", "entry_point"])
async def test_the_entry_point_goes_before_the_first_workflow(word: str) -> None:
    entries = [{"name": "echo"}, {"name": "other", "outputs": {"mapped": "$.get('other')"}}]
    result = await run(skill(workflows=entries, **{word: "other"}))
    assert result.state["mapped"] is True
    alone = await run(skill(workflows=[{"name": "echo"}], **{word: "other"}))
    assert alone.state["other"] is True


@pytest.mark.parametrize(
    "fields",
    [
        {"workflows": [{"name": "other"}], "agents": []},
        {"workflows": ["other"]},
        {"workflows": [{"name": "other"}], "agents": [{"name": "actor"}]},
    ],
)
async def test_the_first_workflow_is_the_entry(fields: Any) -> None:
    assert (await run(skill(**fields))).state["other"] is True


async def test_an_agent_is_the_entry_when_there_is_no_workflow() -> None:
    entry = {"name": "actor", "inputs": {"text": "'hey'"}, "outputs": {"o": "$.get('other')"}}
    result = await run(skill(workflows=[], agents=[entry]))
    assert result.state == {"o": True}
    assert result.content == "hey"


async def test_a_failed_entry_fails_the_skill_and_its_outputs_are_still_mapped() -> None:
    entry = {"name": "broken", "outputs": {"half": "$.get('half')"}}
    result = await run(skill(workflows=[entry]))
    assert result.status == "failed"
    assert result.state["half"] == 1
    assert result.state["workflow-status"] == "failed"
    assert result.state["workflow-error"]["code"] == "task_type_unknown"
    assert result.error is not None
    assert (result.error.workflow, result.error.task) == ("broken", "bad")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "definition_invalid"),
        ({"workflows": [], "agents": []}, "definition_invalid"),
        ({"workflows": "echo"}, "definition_invalid"),
        ({"workflows": [7]}, "definition_invalid"),
        ({"workflows": [{"name": "echo", "inputs": [1]}]}, "definition_invalid"),
        ({"workflows": [{"name": "ghost"}]}, "definition_missing"),
        ({"agents": [{"name": "ghost"}]}, "definition_missing"),
        ({"workflows": [{"name": "echo", "outputs": {"x": "'x' * 1000000000"}}]}, "sandbox_limit"),
    ],
)
async def test_a_skill_that_cannot_run_fails_with_a_code(fields: Any, code: str) -> None:
    result = await run(skill(**fields), {"text": "x"})
    assert result.error is not None
    assert result.error.code == code


async def test_a_new_attempt_goes_on_inside_the_entrys_agent() -> None:
    entry = {"name": "actor", "inputs": {"text": "$.get('q')"}}
    definition = skill(agents=[entry])
    world = made()
    whole = await run_skill(definition, {"q": "hi"}, world.context())
    index, state, _ = world.checkpoints[0]
    assert index == 1
    fresh = made()
    resumed = await run_skill(
        definition,
        {"q": "hi"},
        fresh.context(),
        workflow_index=1,
        state=orjson.loads(encode_json(state)),
    )
    assert resumed == whole
    assert fresh.statuses == [("other", "executed")]
