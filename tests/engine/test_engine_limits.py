"""Nothing a template or its data does makes a run endless, or larger than memory."""

from __future__ import annotations

from typing import Any

import pytest

import machina.engine.context as context_module
import machina.engine.loops as loops_module
from machina.engine.borders import MAX_LEVELS, is_deep, weigh
from tests.builders import World, agent, call_workflow, compute, step, workflow


def loop(size: int, **more: Any) -> dict[str, Any]:
    return compute(foreach={"name": "i", "value": f"list(range({size}))"}, **more)


async def test_a_loop_over_a_million_items_is_refused_before_it_starts() -> None:
    task = compute(foreach={"name": "i", "value": "$.get('items')"})
    result = await World().run(workflow(task), {"items": [0] * 1_000_000})
    assert result.error is not None
    assert result.error.code == "sandbox_limit"
    assert "at most 10000" in result.error.message


@pytest.mark.parametrize("concurrent", [True, False])
async def test_loops_inside_loops_are_bounded_in_all(
    monkeypatch: pytest.MonkeyPatch, concurrent: bool
) -> None:
    monkeypatch.setattr(context_module, "MAX_CALLS", 100)
    inner = workflow(loop(30), name="inner")
    foreach = {"name": "j", "value": "list(range(30))", "concurrent": concurrent}
    result = await World(inner).run(workflow(call_workflow("inner", foreach=foreach)))
    assert result.error is not None
    assert result.error.code == "sandbox_limit"
    assert "100 tasks" in result.error.message


async def test_a_bounded_run_ends_although_its_tasks_may_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(context_module, "MAX_CALLS", 10)
    flow = workflow(loop(100, continue_on_error=True), compute(outputs={"x": "1"}))
    result = await World().run(flow)
    assert result.status == "failed"


async def test_the_steps_of_an_agent_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_module, "MAX_CALLS", 10)
    empty = workflow(name="empty")
    foreach = {"name": "i", "value": "list(range(20))"}
    result = await World(empty).run(agent(step("empty", foreach=foreach)))
    assert result.error is not None
    assert result.error.code == "sandbox_limit"


@pytest.mark.parametrize("concurrent", [True, False])
async def test_the_iterations_of_a_loop_may_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, concurrent: bool
) -> None:
    monkeypatch.setattr(loops_module, "MAX_KEPT", 100_000)
    foreach = {"name": "i", "value": "list(range(50))", "concurrent": concurrent}
    greedy = compute(foreach=foreach, outputs={"x": "'x' * 10000"})
    result = await World().run(workflow(greedy))
    assert result.error is not None
    assert result.error.code == "sandbox_limit"
    actor = agent(step("wide", foreach=foreach, outputs={"x": "$.get('x')"}))
    wide = workflow(compute(outputs={"x": "'x' * 10000"}), name="wide", outputs={"x": "$.get('x')"})
    result = await World(wide).run(actor)
    assert result.error is not None
    assert result.error.code == "sandbox_limit"


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


async def test_a_workflow_that_gives_back_what_is_nested_too_deep_fails() -> None:
    flow = workflow(outputs={"deep": "{'a': $.get('deep')}", "other": "1"})
    result = await World().run(flow, {"deep": nested(MAX_LEVELS)})
    assert result.error is not None
    assert result.error.code == "sandbox_limit"
    assert "'deep' in the outputs of workflow 'flow'" in result.error.message
    assert result.state["deep"] is None
    assert result.state["other"] == 1


async def test_a_step_that_gives_back_what_is_nested_too_deep_fails() -> None:
    echo = workflow(name="echo", outputs={"deep": "$.get('deep')"})
    actor = agent(
        step(
            "echo",
            inputs={"deep": "$.get('deep')"},
            outputs={"deeper": "{'a': {'b': $.get('deep')}}", "fine": "1"},
        )
    )
    result = await World(echo).run(actor, {"deep": nested(MAX_LEVELS - 1)})
    assert result.error is not None
    assert result.error.code == "sandbox_limit"
    assert (result.state["deeper"], result.state["fine"]) == (None, 1)


@pytest.mark.parametrize("levels", [0, 1, 10, MAX_LEVELS])
def test_a_value_is_deep_from_one_level_more_than_allowed(levels: int) -> None:
    assert not is_deep(nested(levels), levels)
    if levels:
        assert is_deep(nested(levels), levels - 1)


def test_a_value_weighs_its_texts_and_its_parts_and_no_more_is_looked_at_than_needed() -> None:
    assert weigh("x" * 1_000, 10**6) >= 1_000
    assert weigh([{"a": "x" * 100, "b": {1, 2}}] * 10, 10**6) >= 1_000
    endless: list[Any] = []
    endless.append(endless)
    assert weigh(endless, 5_000) > 5_000
