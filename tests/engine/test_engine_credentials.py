"""`context-variables`: three layers, what hides what, and what a connector gets."""

from __future__ import annotations

from typing import Any

import pytest

from machina.connectors.base import ConnectorReply
from tests.builders import World, agent, compute, step, workflow

A, B = "$TEMP_CONTEXT_VARIABLE_A", "$MACHINA_CONTEXT_VARIABLE_B"
SECRETS = {"TEMP_CONTEXT_VARIABLE_A": "aaa", "MACHINA_CONTEXT_VARIABLE_B": "bbb"}


def call(name: str = "shop", **more: Any) -> dict[str, Any]:
    """A connector task."""
    connector = {"name": name, "command": "get-x"}
    return {"type": "connector", "name": "call", "connector": connector, **more}


def shop(**fields: Any) -> World:
    """A world with the connector `shop`, which has these fields of its own."""
    world = World()
    world.definitions["connector", "shop"] = {"name": "shop", "context-variables": fields}
    world.replies["shop"] = ConnectorReply({"ok": True})
    return world


async def credentials(world: World, flow: Any, actor: Any = None) -> Any:
    if actor is not None:
        world.definitions["workflow", "flow"] = flow
    await world.run(actor or flow, secrets=SECRETS.get)
    return world.called[-1].credentials


async def test_a_group_of_the_workflow_goes_before_the_agents_and_that_before_the_connectors() -> (
    None
):
    world = shop(one="connector", two="connector", three="connector", four=A)
    flow = workflow(call(), context_variables={"shop": {"one": "workflow"}})
    actor = agent(
        step("flow"),
        context_variables={"shop": {"one": "agent", "two": "agent"}, "other": {"x": 1}},
    )
    assert await credentials(world, flow, actor) == {
        "one": "workflow",
        "two": "agent",
        "three": "connector",
        "four": "aaa",
    }


async def test_a_layer_whose_secret_is_missing_gives_way_to_the_next() -> None:
    world = shop(key=B)
    flow = workflow(call(), context_variables={"shop": {"key": "$TEMP_CONTEXT_VARIABLE_NOBODY"}})
    assert await credentials(world, flow) == {"key": "bbb"}


async def test_a_secret_that_nobody_provides_is_null() -> None:
    flow = workflow(call(), context_variables={"shop": {"key": "$TEMP_CONTEXT_VARIABLE_NOBODY"}})
    assert await credentials(shop(), flow) == {"key": None}


@pytest.mark.parametrize(
    "value",
    [
        *("api", f"Bearer {A}", "$.get('x')", "$TEMP_CONTEXT_VARIABLE_"),
        *("$temp_CONTEXT_VARIABLE_A", "TEMP_CONTEXT_VARIABLE_A", "$TEMP_A", 7, True),
    ],
)
async def test_a_value_that_is_no_token_stays_as_it_is(value: Any) -> None:
    flow = workflow(call(), context_variables={"shop": {"field": value}})
    assert await credentials(shop(), flow) == {"field": value}


async def test_a_token_may_have_blanks_around_it_and_any_prefix() -> None:
    world = shop()
    flow = workflow(
        call(), context_variables={"shop": {"a": f" {A}\n", "t": "$ACME_1_CONTEXT_VARIABLE_KEY"}}
    )
    secrets = {**SECRETS, "ACME_1_CONTEXT_VARIABLE_KEY": "ttt"}
    await world.run(flow, secrets=secrets.get)
    assert world.called[0].credentials == {"a": "aaa", "t": "ttt"}


async def test_connector_fields_under_the_connectors_name_are_understood_too() -> None:
    world = shop(shop={"key": A})
    assert await credentials(world, workflow(call())) == {"key": "aaa"}


@pytest.mark.parametrize("groups", [{"shop": {}}, {"shop": None}, {"shop": "text"}, {}, None, []])
async def test_empty_groups_and_groups_of_another_shape_are_none(groups: Any) -> None:
    flow = workflow(call(), context_variables=groups)
    assert await credentials(shop(), flow) == {}


async def test_the_loop_variable_goes_before_the_own_group_and_that_before_the_state() -> None:
    world = shop(own="connector", item="connector")
    task = call(
        foreach={"name": "item", "expr": "$", "value": "['loop']"},
        inputs={key: f"$.get('{key}')" for key in ("item", "own", "state", "other", "none")},
    )
    groups = {"mail": {"state": "mail", "other": "mail", "own": "mail"}}
    flow = workflow(task, context_variables=groups)
    await world.run(flow, {"item": "payload", "own": "payload", "state": "payload"})
    assert world.called[0].inputs == {
        "item": "loop",
        "own": "connector",
        "state": "payload",
        "other": "mail",
        "none": None,
    }


async def test_a_group_is_seen_in_conditions_and_never_stored_in_the_state() -> None:
    world = shop(key=A)
    flow = workflow(
        call(condition="$.get('key') == 'aaa'", outputs={"ran": "context.get('key', 'absent')"}),
        compute(inputs={"later": "$.get('key', 'absent')"}),
        outputs={"got": "[$.get('ran'), $.get('later')]"},
    )
    result = await world.run(flow, secrets=SECRETS.get)
    assert result.state["got"] == ["absent", "absent"]


async def test_an_agents_listed_context_variables_are_no_groups() -> None:
    world = shop()
    actor = agent(step("flow"), context_variables=[{"name": "shop", "default": "'x'"}])
    assert await credentials(world, workflow(call()), actor) == {}


async def test_the_connector_is_asked_for_its_fields_once_per_run() -> None:
    class Counting(World):
        asked = 0

        async def definition(self, kind: str, name: str) -> dict[str, Any] | None:
            self.asked += kind == "connector"
            return await super().definition(kind, name)

    world = Counting()
    world.replies["shop"] = ConnectorReply({})
    await world.run(workflow(*[call(condition="False")] * 5))
    assert world.asked == 1
