"""Whatever a payload, a document or a reply holds is data: it is never evaluated, anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from machina.connectors.base import ConnectorReply
from machina.engine import RunContext, run_agent, run_skill, run_workflow
from machina.expressions import evaluate
from machina.expressions.scope import Scope
from tests.builders import AnsweringProvider, World, agent, ask, call_workflow, compute, step
from tests.builders import workflow as flow
from tests.engine.documenting import Desk, document

TOKEN = "$TEMP_CONTEXT_VARIABLE_API_KEY"
HOSTILE: dict[str, Any] = {
    "token": TOKEN,
    "code": "$.get('other')",
    "sum": "1 + 1",
    "quoted": "'quoted'",
    "list": [TOKEN, {"deep": "$.get('other')"}],
    "$.get('other')": "a key",
    "default": TOKEN,
    "type": "string",
}
PAYLOAD: dict[str, Any] = {"h": HOSTILE, "other": "evaluated"}
GET = {"h": "$.get('h')"}


def context(world: World) -> RunContext:
    return world.context(secrets={TOKEN[1:]: "classified"}.get)


async def through(world: World, definition: dict[str, Any]) -> Any:
    """What comes out of a workflow, or an agent, as `h`."""
    run = run_agent if "workflows" in definition else run_workflow
    result = await run(definition, PAYLOAD, context(world))
    assert result.error is None, result.error
    return result.state["h"]


def test_the_hostile_texts_would_mean_something_if_they_were_evaluated() -> None:
    scope = Scope(PAYLOAD, context=PAYLOAD, secrets={TOKEN[1:]: "classified"}.get)
    assert evaluate(HOSTILE, scope) == {
        "token": "classified",
        "code": "evaluated",
        "sum": 2,
        "quoted": "quoted",
        "list": ["classified", {"deep": "evaluated"}],
        "evaluated": "a key",
        "default": "classified",
        "type": "string",
    }


async def test_a_payload_passes_tasks_conditions_and_loops() -> None:
    chain = flow(
        compute("copy", inputs=GET, condition="$.get('h')", outputs={"h": "$.get('h')"}),
        compute(
            "loop",
            foreach={"name": "item", "value": "[$.get('h')]"},
            inputs={"h": "$.get('item')"},
            outputs={"all": "[$.get('h')]"},
        ),
        outputs={"h": "$.get('all')[0]"},
        inputs=GET,
    )
    assert await through(World(), chain) == HOSTILE


async def test_a_declared_input_takes_a_value_as_it_is() -> None:
    declared = flow(inputs={"h": {"type": "object", "default": {}}}, outputs=GET)
    assert await through(World(), declared) == HOSTILE


async def test_a_mapping_gets_and_gives_data() -> None:
    world = World()
    world.definitions["mapping", "shape"] = {
        "name": "shape",
        "inputs": {"more": "$.get('h')"},
        "outputs": {"got": "[$.get('h'), $.get('more')]"},
    }
    task = {"type": "mapping", "name": "shape", "inputs": GET, "outputs": {"h": "$.get('got')"}}
    assert await through(world, flow(task, outputs=GET)) == [HOSTILE, HOSTILE]


async def test_a_workflow_inside_a_workflow_gets_and_gives_data() -> None:
    inner = flow(name="inner", inputs=GET, outputs=GET)
    task = call_workflow("inner", inputs=GET, outputs=GET)
    assert await through(World(inner), flow(task, outputs=GET)) == HOSTILE


async def test_an_operation_of_the_server_gets_and_gives_data() -> None:
    world = World()
    world.operations["workflow-schedule"] = {"_id": "1", "back": HOSTILE}
    task = call_workflow(
        "workflow-schedule", inputs={"inputs": "$.get('h')"}, outputs={"h": "$.get('back')"}
    )
    assert await through(world, flow(task, outputs=GET)) == HOSTILE
    [(_, payload)] = world.operated
    assert payload["inputs"] == HOSTILE


async def test_a_connector_gets_and_gives_data() -> None:
    world = World()
    world.definitions["connector", "shop"] = {"name": "shop", "filetype": "restapi"}
    world.replies["shop"] = ConnectorReply(HOSTILE)
    block = {"name": "shop", "command": "get-x", "command_attribute": GET, "inputs": {"in": "$"}}
    task = {"type": "connector", "name": "t", "connector": block, "inputs": GET}
    assert await through(world, flow(task | {"outputs": {"h": "$"}}, outputs=GET)) == HOSTILE
    [call] = world.called
    assert (call.inputs["h"], call.attributes) == (HOSTILE, {"h": HOSTILE})


async def test_a_prompt_is_told_data_and_its_answer_is_data() -> None:
    provider = AnsweringProvider(TOKEN)
    prompt = {"name": "ask", "instruction": "Say {h} and {{token}}"}
    world = World(prompts=[prompt], provider=provider)
    inputs = {"h": "$.get('h').get('token')", "token": "$.get('h').get('code')"}
    task = ask(inputs=inputs, outputs={"h": "$"})
    assert await through(world, flow(task, outputs=GET)) == TOKEN
    told = str(provider.requests[0].messages)
    assert TOKEN in told
    assert "classified" not in told
    assert "evaluated" not in told


async def test_an_agent_its_context_and_its_steps_hand_on_data() -> None:
    inner = flow(name="inner", outputs=GET)
    actor = agent(
        step("inner", inputs=GET, outputs=GET),
        step(
            "inner",
            foreach={"name": "item", "value": "[$.get('h')]"},
            inputs={"h": "$.get('item')"},
            outputs={"h": "$.get('h')"},
        ),
        context={"kept": TOKEN},
        context_agent={"h": "$.get('h')"},
    )
    assert await through(World(inner), actor) == HOSTILE


async def test_a_new_attempt_goes_on_with_data() -> None:
    state = {"h": HOSTILE, "other": "evaluated"}
    actor = agent(step("none"), step("inner", inputs=GET, outputs=GET))
    world = World(flow(name="inner", outputs=GET))
    result = await run_agent(actor, PAYLOAD, context(world), start_at=1, state=state)
    assert result.state["h"] == HOSTILE


async def test_a_skill_maps_data() -> None:
    world = World(flow(name="inner", outputs=GET))
    helper = {"name": "s", "workflows": [{"name": "inner", "inputs": GET, "outputs": GET}]}
    result = await run_skill(helper, PAYLOAD, context(world))
    assert result.state["h"] == HOSTILE


@pytest.mark.parametrize("action", ["save", "update"])
async def test_documents_keep_and_give_data(desk: Desk, action: str) -> None:
    plain = {key: value for key, value in HOSTILE.items() if "$" not in key}
    kept = document(action, documents={"note": "$.get('p')"}, metadata={"m": "$.get('p')['token']"})
    [written] = await desk.do(kept, p=plain)
    assert (written["value"], written["metadata"]["m"]) == (plain, TOKEN)
    search = document("search", filters={"metadata.m": "$.get('wanted')"})
    [found] = await desk.do(search, wanted=TOKEN)
    assert found["value"] == plain
    by_inputs = document("search", inputs={"name": "'note'", "metadata.m": "$.get('wanted')"})
    assert await desk.do(by_inputs, wanted=TOKEN) == [found]
