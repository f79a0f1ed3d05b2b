from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machina.errors import BudgetExceeded, TaskFailed
from tests.builders import World, agent, ask, call_workflow, compute, failing, step, workflow

BOTH = pytest.mark.parametrize("concurrent", [False, True])


def loop(value: str = "$.get('items')", *, name: str = "item", concurrent: bool = False) -> Any:
    return {"name": name, "expr": "$", "value": value, "concurrent": concurrent}


# tasks


@BOTH
async def test_a_task_runs_once_per_item_and_lists_are_joined(concurrent: bool) -> None:
    task = compute(
        foreach=loop(concurrent=concurrent),
        inputs={"twice": "$.get('item') * 2"},
        outputs={"all": "[$.get('twice')]", "last": "context.get('item')"},
    )
    flow = workflow(task, outputs={"got": "[$.get('all'), $.get('last')]"})
    result = await World().run(flow, {"items": [1, 2, 3]})
    assert result.state["got"] == [[2, 4, 6], 3]


@BOTH
async def test_an_empty_list_sets_nothing(concurrent: bool) -> None:
    task = compute(foreach=loop(concurrent=concurrent), inputs={"x": "9"}, outputs={"all": "[1]"})
    flow = workflow(task, outputs={"got": "[$.get('x'), $.get('all', 'unset')]"})
    empty: list[Any] = [[], None]
    for items in empty:
        result = await World().run(flow, {"items": items, "x": 1})
        assert result.state["got"] == [1, "unset"]


async def test_the_loop_does_not_append_to_an_older_value() -> None:
    task = compute(foreach=loop(), outputs={"all": "[context.get('item')]"})
    flow = workflow(task, outputs={"all": "$.get('all')"})
    result = await World().run(flow, {"items": [1, 2], "all": [0]})
    assert result.state["all"] == [1, 2]


async def test_iterations_do_not_see_each_other() -> None:
    task = compute(foreach=loop(), outputs={"seen": "[context.get('seen', 'nothing')]"})
    flow = workflow(task, outputs={"seen": "$.get('seen')"})
    assert (await World().run(flow, {"items": [1, 2]})).state["seen"] == ["nothing", "nothing"]


async def test_the_loop_variable_does_not_stay_in_the_state() -> None:
    task = compute(foreach=loop(), inputs={"x": "$.get('item')"})
    flow = workflow(task, outputs={"got": "[$.get('item', 'gone'), $.get('x')]"})
    assert (await World().run(flow, {"items": [1, 2]})).state["got"] == ["gone", 2]


async def test_the_condition_is_asked_once_before_the_loop() -> None:
    task = compute(
        foreach=loop(),
        condition="len($.get('items')) > 1 and $.get('item') is None",
        outputs={"all": "[1]"},
    )
    flow = workflow(task, outputs={"all": "$.get('all', 'unset')"})
    assert (await World().run(flow, {"items": [1, 2]})).state["all"] == [1, 1]
    assert (await World().run(flow, {"items": [1]})).state["all"] == "unset"


async def test_inputs_that_need_the_loop_variable_do_not_hide_the_state_from_the_condition() -> (
    None
):
    task = compute(
        foreach=loop("$.get('groups')", name="group"),
        condition="len($.get('documents')) > 0",
        inputs={"documents": "$.get('group').get('documents')"},
        outputs={"all": "$.get('documents')"},
    )
    payload = {"documents": [0], "groups": [{"documents": [1]}, {"documents": [2]}]}
    flow = workflow(task, outputs={"all": "$.get('all')"})
    assert (await World().run(flow, payload)).state["all"] == [1, 2]


async def test_a_condition_of_a_loop_sees_inputs_that_need_no_loop_variable() -> None:
    task = compute(
        foreach=loop(), condition="$.get('on')", inputs={"on": "True"}, outputs={"all": "[1]"}
    )
    flow = workflow(task, outputs={"all": "$.get('all', 'unset')"})
    assert (await World().run(flow, {"items": [1]})).state["all"] == [1]


HALVING = "6 // $.get('item')"


def dividing(**more: Any) -> Any:
    """A sub-workflow call that fails for the item 0."""
    return call_workflow(
        "divide",
        foreach=loop(concurrent=more.pop("concurrent", False)),
        inputs={"item": "$.get('item')"},
        outputs={"all": "[$.get('half')]"},
        **more,
    )


DIVIDE = workflow(
    failing(condition="$.get('item') == 0"),
    name="divide",
    outputs={"half": HALVING},
)


@BOTH
async def test_a_failing_iteration_fails_the_task(concurrent: bool) -> None:
    flow = workflow(dividing(concurrent=concurrent), outputs={"all": "$.get('all', 'unset')"})
    result = await World(DIVIDE).run(flow, {"items": [1, 0, 2]})
    assert (result.status, result.state["all"]) == ("failed", "unset")


@BOTH
async def test_a_failing_iteration_contributes_nothing_when_the_task_may_fail(
    concurrent: bool,
) -> None:
    task = dividing(concurrent=concurrent, continue_on_error=True)
    flow = workflow(task, outputs={"all": "$.get('all', 'unset')"})
    result = await World(DIVIDE).run(flow, {"items": [1, 0, 2]})
    assert (result.status, result.state["all"]) == ("executed", [6, 3])


@pytest.mark.parametrize(
    ("value", "error"),
    [("7", TaskFailed), ("'abc'", TaskFailed), ("list(range(10001))", BudgetExceeded)],
)
async def test_a_loop_over_no_list_or_too_long_a_list_fails_the_task(
    value: str, error: type[Exception]
) -> None:
    result = await World().run(workflow(compute("looped", foreach=loop(value))))
    assert isinstance(result.error, error)
    assert result.error.task == "looped"


async def test_a_loop_whose_value_raises_fails_the_task() -> None:
    result = await World().run(workflow(compute(foreach=loop("len(None)"))))
    assert result.error is not None
    assert result.error.code == "expression_error"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(-3, 3) | st.none(), max_size=12))
async def test_a_concurrent_loop_gives_what_a_sequential_one_gives(items: list[Any]) -> None:
    states = []
    for concurrent in (False, True):
        task = compute(
            foreach=loop(concurrent=concurrent),
            inputs={"half": HALVING},
            outputs={"all": "[$.get('half')]", "one": "$.get('half')"},
        )
        flow = workflow(task, outputs={"got": "[$.get(k, '-') for k in ('all', 'one', 'half')]"})
        states.append((await World().run(flow, {"items": items})).state)
    assert states[0] == states[1]


# steps


@BOTH
async def test_a_step_runs_its_workflow_once_per_item(concurrent: bool) -> None:
    flow = workflow(outputs={"half": HALVING})
    actor = agent(
        step(foreach=loop(concurrent=concurrent), outputs={"all": "[$.get('half')]"}),
    )
    world = World(flow)
    result = await world.run(actor, {"items": [1, 2, 3]})
    assert result.state["all"] == [6, 3, 2]
    assert world.statuses == [("flow", "executed")]


async def test_a_workflow_sees_the_loop_variable_and_the_inputs_only() -> None:
    flow = workflow(outputs={"got": "[$.get('item'), $.get('plus'), $.get('items', 'hidden')]"})
    actor = agent(
        step(
            foreach=loop(),
            inputs={"plus": "$.get('item') + context.get('offset')"},
            outputs={"all": "[$.get('got')]", "last": "$.get('item')"},
        ),
    )
    result = await World(flow).run(actor, {"items": [1, 2], "offset": 10})
    assert result.state["all"] == [[1, 11, "hidden"], [2, 12, "hidden"]]
    assert result.state["last"] == 2
    assert "item" not in result.state


async def test_a_step_gives_what_the_good_iterations_gave_and_fails() -> None:
    actor = agent(step("divide", foreach=loop(), outputs={"all": "[$.get('workflow-status')]"}))
    result = await World(DIVIDE).run(actor, {"items": [1, 0, 2]})
    assert result.status == "failed"
    assert result.state["all"] == ["executed", "failed", "executed"]


async def test_a_step_over_an_empty_list_is_executed_and_sets_nothing() -> None:
    world = World(workflow())
    actor = agent(step(foreach=loop(), outputs={"x": "1"}))
    result = await world.run(actor, {"items": []})
    assert (result.status, "x" in result.state) == ("executed", False)
    assert world.statuses == [("flow", "executed")]


async def test_a_step_whose_loop_is_over_no_list_fails_and_its_outputs_see_that() -> None:
    actor = agent(step(foreach=loop("7"), outputs={"x": "$.get('workflow-status')"}))
    result = await World(workflow()).run(actor)
    assert (result.status, result.state["x"]) == ("failed", "failed")
    assert result.error is not None
    assert result.error.workflow == "flow"


async def test_many_prompts_of_a_concurrent_loop_are_all_answered_in_order() -> None:
    task = ask(
        foreach=loop(concurrent=True),
        inputs={"q": "$.get('item')"},
        outputs={"all": "[context.get('q')]"},
    )
    flow = workflow(task, outputs={"all": "$.get('all')"})
    result = await World().run(flow, {"items": list(range(50))})
    assert result.state["all"] == list(range(50))
