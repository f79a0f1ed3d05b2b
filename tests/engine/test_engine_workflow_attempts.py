"""A run that is one workflow: checkpoints between its tasks, and what may have happened twice."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from machina.connectors.base import ConnectorReply
from machina.engine import RunResult, run_agent, run_workflow
from machina.engine.workflow_run import CHECKPOINT_SECONDS
from machina.events import encode_json
from tests.builders import (
    AnsweringProvider,
    World,
    agent,
    ask,
    call_workflow,
    compute,
    failing,
    step,
    workflow,
)


class Clock:
    """Every look at it moves it on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.time = 0.0

    def __call__(self) -> float:
        self.time += self.seconds
        return self.time


SLOW = CHECKPOINT_SECONDS
"""A clock of this pace makes a checkpoint due after every task."""

CHAIN = workflow(
    compute("one", inputs={"n": "$.get('n') + 1"}, outputs={"at": "datetime(2026, 1, 2)"}),
    compute("two", condition="False", outputs={"n": "0"}),
    failing("three", continue_on_error=True),
    compute("four", outputs={"n": "$.get('n') * 10", "day": "$.get('at').strftime('%d')"}),
    inputs={"n": "$.get('n', 1)"},
    outputs={"n": "$.get('n')", "day": "$.get('day')", "free": "$.get('free')"},
)


async def resume(world: World, flow: Any, index: int, **more: Any) -> tuple[World, RunResult]:
    """A new attempt after the checkpoint of `index`, which went through the store as JSON."""
    _, state, text = next(kept for kept in world.task_checkpoints if kept[0] == index)
    fresh = World(provider=world.llm)
    fresh.definitions, fresh.replies = world.definitions, world.replies
    context = fresh.context(text=text, **more)
    stored = orjson.loads(encode_json(state))
    return fresh, await run_workflow(flow, {}, context, start_at=index, state=stored)


async def test_a_workflow_is_kept_after_each_task_but_the_last() -> None:
    world = World(now=Clock(SLOW))
    await world.run(CHAIN)
    assert [kept[0] for kept in world.task_checkpoints] == [1, 2, 3]
    assert {kept[0] for kept in world.checkpoints} == {0}


@pytest.mark.parametrize("index", [1, 2, 3])
async def test_a_resumed_workflow_ends_with_the_same_outputs(index: int) -> None:
    world = World(now=Clock(SLOW))
    whole = await world.run(CHAIN, {"n": 4, "free": "kept"})
    assert whole.state["n"] == 50
    assert (whole.state["day"], whole.state["free"]) == ("02", "kept")
    _, resumed = await resume(world, CHAIN, index)
    assert resumed == whole


async def test_a_resumed_workflow_does_not_run_finished_tasks_again() -> None:
    world = World(now=Clock(SLOW))
    world.replies["shop"] = ConnectorReply({"x": 1})
    call = {"type": "connector", "name": "call", "connector": {"name": "shop", "command": "c"}}
    flow = workflow(call, compute(), call | {"name": "again"})
    await world.run(flow)
    assert len(world.called) == 2
    fresh, _ = await resume(world, flow, 2)
    assert len(fresh.called) == 1


async def test_checkpoints_are_not_kept_more_often_than_the_rate() -> None:
    world = World(now=Clock(SLOW / 100))
    await world.run(workflow(*[compute(str(number)) for number in range(60)]))
    assert 0 < len(world.task_checkpoints) < 10


async def test_a_large_state_is_not_kept_between_tasks() -> None:
    world = World(now=Clock(SLOW))
    await world.run(workflow(compute(), compute()), {"large": ["x"] * 10_000})
    assert world.checkpoints == []


async def test_only_the_outermost_workflow_is_kept() -> None:
    inner = workflow(compute("a"), compute("b"), name="inner")
    world = World(inner, now=Clock(SLOW))
    await world.run(workflow(call_workflow("inner"), compute()))
    assert [kept[0] for kept in world.task_checkpoints] == [1]


async def test_a_checkpoint_between_tasks_keeps_what_was_said() -> None:
    world = World(provider=AnsweringProvider("one ", "two"), now=Clock(SLOW))
    flow = workflow(ask(inputs={"q": "1"}, stream=True), ask(inputs={"q": "1"}, stream=True))
    assert (await world.run(flow, streamed=True)).content == "one two"
    assert world.task_checkpoints[0][2] == "one "
    world.llm = AnsweringProvider("2")
    _, resumed = await resume(world, flow, 1, streamed=True)
    assert resumed.content == "one 2"


# what an earlier attempt may have begun


def effects() -> list[Any]:
    """Tasks with side effects, and some without."""
    connector = {"name": "shop", "command": "c"}
    return [
        compute("compute"),
        {"type": "connector", "name": "call", "connector": connector},
        {"type": "document", "name": "find", "config": {"action": "search"}, "condition": "False"},
        {"type": "document", "name": "save", "config": {"action": "save"}, **FAILS},
        call_workflow("inner", "inner"),
        ask("ask", inputs={"q": "1"}),
        {"type": "connector", "name": "skipped", "connector": connector, "condition": "False"},
    ]


FAILS: dict[str, Any] = {"continue_on_error": True, "documents": {"a": "1/0"}}


def world() -> World:
    made = World(workflow(name="inner"))
    made.replies["shop"] = ConnectorReply({})
    return made


async def test_a_first_attempt_repeats_nothing() -> None:
    context = world().context()
    await run_workflow(workflow(*effects()), {}, context)
    assert context.repeated == []


async def test_a_later_attempt_names_the_tasks_with_side_effects_that_may_have_run() -> None:
    context = world().context(in_doubt=True)
    await run_workflow(workflow(*effects()), {}, context)
    assert context.repeated == [
        {"workflow": "flow", "task": name} for name in ("call", "save", "inner")
    ]


async def test_a_loop_is_named_once() -> None:
    task = effects()[1] | {"foreach": {"name": "i", "value": "[1, 2, 3]"}}
    context = world().context(in_doubt=True)
    await run_workflow(workflow(task), {}, context)
    assert context.repeated == [{"workflow": "flow", "task": "call"}]


async def test_an_agent_is_in_doubt_about_its_first_unfinished_step_only() -> None:
    made = world()
    for name in ("skipped", "first", "second"):
        made.definitions["workflow", name] = workflow(effects()[1], name=name)
    actor = agent(step("skipped", condition="False"), step("first"), step("second"))
    noted = [{"workflow": "earlier", "task": "known"}]
    context = made.context(in_doubt=True, repeated=noted)
    await run_agent(actor, {}, context, start_at=0, state={})
    assert noted == [
        {"workflow": "earlier", "task": "known"},
        {"workflow": "first", "task": "call"},
    ]
