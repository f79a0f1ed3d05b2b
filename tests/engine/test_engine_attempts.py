"""A new attempt goes on from a checkpoint; a cancelled one lets go of everything."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from machina.connectors.llm.scripted import ScriptedProvider
from machina.engine import RunResult, run_agent
from machina.errors import Fenced
from machina.events import Event, encode_json
from tests.builders import AnsweringProvider, World, agent, ask, compute, failing, step, workflow

CLOCK = workflow(
    name="clock",
    outputs={
        "at": "datetime.fromisoformat('2026-01-02T03:04:05')",
        "span": "timedelta(hours=1)",
        "pair": "(1, 2)",
        "many": "{'a': 8}",
    },
)
LATER = workflow(
    name="later",
    outputs={"text": "($.get('at') + $.get('span')).strftime('%H:%M') + str($.get('pair'))"},
)
BROKEN = workflow(failing(), name="broken")

JOURNEY = agent(
    step(
        "clock",
        outputs={key: f"$.get('{key}')" for key in ("at", "span", "pair", "many")},
    ),
    step("broken", outputs={"status": "$.get('workflow-status')"}),
    step("clock", condition="False"),
    step(
        "later",
        inputs={key: f"$.get('{key}')" for key in ("at", "span", "pair")},
        outputs={"text": "$.get('text')"},
    ),
    context_agent={"who": "$.get('who', 'nobody')"},
)


async def resume(world: World, actor: Any, payload: Any, index: int) -> RunResult:
    """A new attempt after the checkpoint of `index`, which went through the store as JSON."""
    _, state, text = next(kept for kept in world.checkpoints if kept[0] == index)
    stored = orjson.loads(encode_json(state))
    fresh = World(*_workflows(world), provider=world.llm)
    context = fresh.context(text=text)
    return await run_agent(actor, payload, context, start_at=index, state=stored)


def _workflows(world: World) -> list[Any]:
    return [d for (kind, _), d in world.definitions.items() if kind == "workflow"]


@pytest.mark.parametrize("index", [1, 2, 4])
async def test_a_resumed_run_ends_with_the_same_state(index: int) -> None:
    world = World(CLOCK, LATER, BROKEN)
    whole = await world.run(JOURNEY, {"who": "Ada"})
    assert whole.state["text"] == "04:04[1, 2]"
    assert [kept[0] for kept in world.checkpoints] == [1, 2, 4]
    resumed = await resume(world, JOURNEY, {"who": "Ada"}, index)
    assert resumed == whole


async def test_a_resumed_run_does_not_evaluate_context_agent_again() -> None:
    world = World(CLOCK, LATER, BROKEN)
    await world.run(JOURNEY, {"who": "Ada"})
    assert (await resume(world, JOURNEY, {"who": "Bob"}, 2)).state["who"] == "Ada"


@pytest.mark.parametrize(
    "steps",
    [
        [step("broken")],
        [step("clock"), step("broken")],
        [step("broken"), step("clock", condition="False")],
        [step("broken"), step("clock", condition="len(None)")],
        [step("clock", condition="len(None)"), step("broken"), step("clock")],
    ],
)
async def test_a_resumed_run_fails_and_succeeds_like_an_uninterrupted_one(steps: Any) -> None:
    world = World(CLOCK, BROKEN)
    actor = agent(*steps)
    whole = await world.run(actor)
    for index, _, _ in world.checkpoints:
        resumed = await resume(world, actor, {}, index)
        assert resumed.status == whole.status
        assert resumed.state == whole.state
        assert str(resumed.error) == str(whole.error)
        if whole.error is not None and resumed.error is not None:
            assert resumed.error.code == whole.error.code
            assert resumed.error.workflow == whole.error.workflow


async def test_a_state_made_by_hand_is_a_checkpoint_too() -> None:
    actor = agent(step("ghost"), step("later", inputs={}, outputs={"x": "$.get('a') + 1"}))
    context = World(LATER).context()
    result = await run_agent(actor, {}, context, start_at=1, state={"a": 1})
    assert (result.status, result.state) == ("executed", {"a": 1, "x": 2})


async def test_a_checkpoint_keeps_the_text_said_up_to_it() -> None:
    flow = workflow(ask(inputs={"q": "1"}, stream=True))
    world = World(flow, provider=AnsweringProvider("one ", "two"))
    actor = agent(step(), step())
    result = await world.run(actor, streamed=True)
    assert [kept[2] for kept in world.checkpoints] == ["one ", "one two"]
    assert result.content == "one two"
    world.llm = AnsweringProvider("again")
    resumed = await resume(world, actor, {}, 1)
    assert resumed.content == "one again"


# cancellation


STALLED = [{"role": "user", "content": '[[script: text="Well" stall_after=1]]'}]


async def cancel_when_said(definition: Any, world: World, word: str) -> None:
    """Runs until `word` was said, cancels, and waits for the end."""
    said = asyncio.Event()
    emit = world.emit

    async def listen(event: Event) -> None:
        await emit(event)
        if event.content == word:
            said.set()

    world.emit = listen  # type: ignore[method-assign]  # the context takes it from here
    run = asyncio.create_task(world.run(definition, {"messages": STALLED}, streamed=True))
    await said.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"continue_on_error": True},
        {"foreach": {"name": "i", "value": "[1, 2]", "concurrent": True}},
    ],
)
async def test_cancelling_closes_the_provider(more: Any) -> None:
    provider = ScriptedProvider(pace_seconds=0)
    task = ask(inputs={"messages": "$.get('messages')"}, stream=True, **more)
    flow = workflow(task, compute("after", outputs={"x": "1"}))
    world = World(flow, provider=provider)
    actor = agent(step(inputs={"messages": "$.get('messages')"}), step("flow"))
    await cancel_when_said(actor, world, "Well")
    assert provider.open_calls == 0
    assert world.steps == []
    assert world.checkpoints == []


async def test_a_fenced_attempt_stops_and_closes_the_provider() -> None:
    async def refuse(event: Event) -> None:
        raise Fenced

    provider = ScriptedProvider(pace_seconds=0)
    world = World(provider=provider)
    world.emit = refuse  # type: ignore[method-assign]  # the context takes it from here
    task = ask(inputs={"q": "1"}, stream=True, continue_on_error=True)
    with pytest.raises(Fenced):
        await world.run(workflow(task), streamed=True)
    assert provider.open_calls == 0


async def test_a_run_that_only_computes_lets_others_run() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticks = iter(range(1_000_000))
    world = World(now=lambda: next(ticks) / 1000)
    beside = asyncio.create_task(others())
    task = compute(foreach={"name": "i", "value": "list(range(100))"}, outputs={"x": "1"})
    await world.run(workflow(task))
    beside.cancel()
    assert turns > 50
