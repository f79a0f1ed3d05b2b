from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from machina.connectors.llm.base import Provider
from machina.engine.tasks import TASK_TYPES
from machina.errors import (
    BudgetExceeded,
    DefinitionInvalid,
    DefinitionMissing,
    InternalError,
    StoreDown,
    TaskTypeUnknown,
)
from tests.builders import World, ask, call_workflow, compute, failing, workflow

BLOWN = "'x' * 1000000000"
"""More memory than an expression may take."""


async def outputs(definition: dict[str, Any], payload: dict[str, Any] | None = None) -> Any:
    return (await World().run(definition, payload)).state


# inputs and outputs of a workflow


async def test_a_workflow_gives_its_outputs_and_nothing_else() -> None:
    flow = workflow(inputs={"a": "$.get('a')"}, outputs={"b": "$.get('a') + 1"})
    assert await outputs(flow, {"a": 1, "c": 2}) == {"workflow-status": "executed", "b": 2}


async def test_payload_stays_in_the_state_when_it_is_not_declared() -> None:
    flow = workflow(inputs={"a": "$.get('a', 1)"}, outputs={"sum": "$.get('a') + $.get('c')"})
    assert (await outputs(flow, {"c": 2}))["sum"] == 3


async def test_inputs_see_the_payload_and_not_each_other() -> None:
    flow = workflow(
        inputs={"a": "$.get('a') * 2", "b": "$.get('a')", "c": "context.get('a')"},
        outputs={"all": "[$.get('a'), $.get('b'), $.get('c')]"},
    )
    assert (await outputs(flow, {"a": 1}))["all"] == [2, 1, 1]


async def test_the_payload_is_the_state_when_there_are_no_inputs() -> None:
    assert (await outputs(workflow(outputs={"x": "$.get('x')"}), {"x": 1}))["x"] == 1


@pytest.mark.parametrize(("payload", "age"), [({}, 3), ({"age": 4}, 4), ({"age": None}, None)])
async def test_a_declared_input_is_taken_from_the_payload(payload: Any, age: Any) -> None:
    declared = {"type": "integer", "description": "$.get('x')", "default": 3}
    flow = workflow(inputs={"age": declared}, outputs={"age": "$.get('age')"})
    assert (await outputs(flow, payload))["age"] == age


async def test_the_authors_own_status_stands() -> None:
    flow = workflow(outputs={"workflow-status": "None is None or 'skipped'"})
    assert (await outputs(flow))["workflow-status"] is True


async def test_dates_in_a_result_are_text() -> None:
    flow = workflow(outputs={"nested": "[{'d': $.get('d')}]"})
    state = await outputs(flow, {"d": datetime(2026, 1, 3, tzinfo=UTC)})
    assert state["nested"] == [{"d": "2026-01-03T00:00:00+00:00"}]


# inputs, condition and outputs of a task


async def test_task_inputs_become_part_of_the_state() -> None:
    flow = workflow(compute(inputs={"x": "$.get('x') + 1"}), outputs={"x": "$.get('x')"})
    assert (await outputs(flow, {"x": 1}))["x"] == 2


async def test_a_condition_sees_the_inputs_of_its_own_task() -> None:
    flow = workflow(
        compute(inputs={"n": "5"}, condition="$.get('n') == 5", outputs={"ran": "True"}),
        outputs={"ran": "$.get('ran', False)"},
    )
    assert (await outputs(flow, {"n": 1}))["ran"] is True


@pytest.mark.parametrize("word", ["condition", "when"])
async def test_a_task_is_skipped_when_its_condition_is_false(word: str) -> None:
    task = compute(inputs={"x": "2"}, outputs={"y": "1"}, **{word: "$.get('x') == 3"})
    flow = workflow(task, outputs={"x": "$.get('x')", "y": "$.get('y')"})
    assert await outputs(flow, {"x": 1}) == {"workflow-status": "executed", "x": 1, "y": None}


@pytest.mark.parametrize(
    ("condition", "when", "runs"),
    [("True", "True", True), ("True", "False", False), ("False", "True", False)],
)
async def test_condition_and_when_must_both_hold(condition: str, when: str, runs: bool) -> None:
    task = compute(condition=condition, when=when, outputs={"ran": "True"})
    assert (await outputs(workflow(task, outputs={"ran": "$.get('ran', False)"})))["ran"] is runs


@pytest.mark.parametrize("condition", ["'executed'", 1, True, "[0]"])
async def test_a_condition_is_python_truth(condition: Any) -> None:
    task = compute(condition=condition, outputs={"ran": "True"})
    assert (await outputs(workflow(task, outputs={"ran": "$.get('ran')"})))["ran"] is True


@pytest.mark.parametrize("condition", ["len($.get('none')) > 0", "$.get('a') <> 1", False, "''"])
async def test_a_condition_counts_as_false_when_it_raises(condition: Any) -> None:
    task = compute(condition=condition, outputs={"ran": "True"})
    result = await World().run(workflow(task, outputs={"ran": "$.get('ran')"}), {"none": None})
    assert result.status == "executed"
    assert result.state["ran"] is None


async def test_an_input_that_raises_becomes_null() -> None:
    flow = workflow(
        compute(inputs={"bad": "len(None)", "good": "1"}),
        outputs={"bad": "$.get('bad', 'absent')", "good": "$.get('good')"},
    )
    assert await outputs(flow) == {"workflow-status": "executed", "bad": None, "good": 1}


async def test_an_output_that_raises_becomes_null_and_the_others_are_set() -> None:
    flow = workflow(
        compute(outputs={"bad": "len(None)", "good": "1"}),
        outputs={"bad": "$.get('bad', 'absent')", "good": "$.get('good')"},
    )
    assert await outputs(flow) == {"workflow-status": "executed", "bad": None, "good": 1}


async def test_an_input_that_raises_fails_nothing_when_the_task_is_skipped() -> None:
    flow = workflow(
        compute(inputs={"x": "len(None)"}, condition="False"), outputs={"x": "$.get('x')"}
    )
    assert (await outputs(flow, {"x": 1}))["x"] == 1


async def test_outputs_are_merged_in_order_and_may_read_earlier_ones() -> None:
    flow = workflow(compute(outputs={"a": "1", "b": "$.get('a') + 1"}), outputs={"b": "$.get('b')"})
    assert (await outputs(flow))["b"] == 2


async def test_values_of_other_types_are_kept_as_they_are() -> None:
    inputs = {"n": 7, "yes": True, "nested": {"a": "$.get('x')", "b": [1, "'two'"]}}
    flow = workflow(
        compute(inputs=inputs),
        outputs={"all": "[$.get('n'), $.get('yes'), $.get('nested')]"},
    )
    assert (await outputs(flow, {"x": 0}))["all"] == [7, True, {"a": 0, "b": [1, "two"]}]


async def test_context_is_the_state_with_inputs_in_task_outputs() -> None:
    task = ask(inputs={"topic": "'tea'"}, outputs={"said": "context.get('topic') + $"})
    world = World(workflow(task))
    result = await world.run(workflow(task, outputs={"said": "$.get('said')"}))
    assert result.state["said"] == "teafine"


async def test_a_prompts_outputs_do_not_fall_back_to_the_state() -> None:
    task = ask(inputs={"q": "'?'"}, outputs={"stale": "$.get('old', 'none')"})
    result = await World().run(workflow(task, outputs={"stale": "$.get('stale')"}), {"old": 1})
    assert result.state["stale"] == "none"


# failure


async def test_a_failed_task_stops_the_workflow_and_outputs_are_still_evaluated() -> None:
    flow = workflow(
        compute("first", outputs={"a": "1"}),
        failing("second", inputs={"seen": "2"}, outputs={"b": "2"}),
        compute("third", outputs={"c": "3"}),
        outputs={
            "got": "[$.get('a'), $.get('seen'), $.get('b'), $.get('c')]",
            "workflow-status": "'executed'",
        },
    )
    result = await World().run(flow)
    assert result.status == "failed"
    assert result.state["got"] == [1, 2, None, None]
    assert result.state["workflow-status"] == "failed"
    assert result.state["workflow-error"] == {
        "task": "second",
        "code": "task_type_unknown",
        "message": (
            "The type of task 'second' of workflow 'flow' is 'teleport', which this server does "
            f"not run; use one of {', '.join(TASK_TYPES)} or remove the task."
        ),
    }
    assert isinstance(result.error, TaskTypeUnknown)
    assert (result.error.workflow, result.error.task) == ("flow", "second")


@pytest.mark.parametrize("type", ["map", "teleport", "", None])
async def test_a_task_of_a_type_that_is_not_run_fails(type: Any) -> None:
    result = await World().run(workflow({"type": type, "name": "t"}))
    assert result.error is not None
    assert result.error.code == "task_type_unknown"


async def test_the_workflow_goes_on_when_a_task_may_fail() -> None:
    flow = workflow(
        failing(inputs={"kept": "1"}, outputs={"a": "1"}, continue_on_error=True),
        compute(outputs={"b": "2"}),
        outputs={"got": "[$.get('kept'), $.get('a'), $.get('b')]"},
    )
    result = await World().run(flow)
    assert (result.status, result.state["got"]) == ("executed", [1, None, 2])
    assert "workflow-error" not in result.state


@pytest.mark.parametrize("word", ["inputs", "condition", "outputs"])
async def test_a_blown_budget_fails_the_task_wherever_it_stands(word: str) -> None:
    blown: Any = BLOWN if word == "condition" else {"x": BLOWN}
    result = await World().run(workflow(compute("greedy", **{word: blown})))
    assert isinstance(result.error, BudgetExceeded)
    assert result.error.code == "sandbox_limit"
    assert (result.error.workflow, result.error.task) == ("flow", "greedy")


@pytest.mark.parametrize("word", ["inputs", "outputs"])
async def test_a_blown_budget_fails_the_workflow_in_its_own_blocks(word: str) -> None:
    blown: Any = {word: {"x": BLOWN}}
    result = await World().run(workflow(**blown))
    assert result.status == "failed"
    assert result.state["workflow-error"]["code"] == "sandbox_limit"
    assert result.state["workflow-error"]["task"] is None


async def test_a_broken_task_fails_only_when_it_is_due() -> None:
    flow = workflow(
        compute("first", outputs={"a": "1"}),
        {"type": "expression", "name": "second", "outputs": "oops"},
        outputs={"a": "$.get('a')"},
    )
    result = await World().run(flow)
    assert isinstance(result.error, DefinitionInvalid)
    assert (result.error.workflow, result.error.task) == ("flow", "second")
    assert result.state["a"] == 1


async def test_a_broken_workflow_fails_with_a_result() -> None:
    result = await World().run({"name": "w", "tasks": "none"})
    assert isinstance(result.error, DefinitionInvalid)
    assert result.error.workflow == "w"
    assert result.state["workflow-status"] == "failed"


class BrokenWorld(World):
    """Its provider door has a defect."""

    def provider(self, connector: Any) -> Provider:
        raise ZeroDivisionError(connector["name"])


async def test_a_defect_inside_a_task_is_that_tasks_failure() -> None:
    flow = workflow(ask(inputs={"q": "'?'"}, continue_on_error=True), ask("b", inputs={"q": "1"}))
    with capture_logs() as logs:
        result = await BrokenWorld().run(flow)
    assert isinstance(result.error, InternalError)
    assert result.error.task == "b"
    assert [log["event"] for log in logs if log.get("exc_info")] == ["task.defect"] * 2


class LostWorld(World):
    """Its store is away."""

    async def definition(self, kind: str, name: str) -> dict[str, Any] | None:
        raise StoreDown("away")


async def test_an_unavailable_store_is_no_failure_of_the_task() -> None:
    flow = workflow(ask(inputs={"q": "'?'"}, continue_on_error=True))
    with pytest.raises(StoreDown):
        await LostWorld().run(flow)


# workflows inside workflows


async def test_a_sub_workflow_gets_the_inputs_and_gives_its_outputs_and_the_run_id() -> None:
    inner = workflow(name="inner", outputs={"y": "$.get('x') * 2", "z": "$.get('hidden')"})
    task = call_workflow(
        "inner", inputs={"x": "21"}, outputs={"y": "$.get('y')", "id": "$.get('run_id')"}
    )
    outer = workflow(task, outputs={"got": "[$.get('y'), $.get('z'), $.get('id')]"})
    result = await World(inner).run(outer, {"hidden": 1})
    assert result.state["got"] == [42, None, "65f000000000000000000001"]


async def test_a_failed_sub_workflow_is_the_tasks_failure_and_says_where_it_came_up() -> None:
    inner = workflow(failing("deep"), name="inner")
    result = await World(inner).run(workflow(call_workflow("inner", "shallow")))
    assert result.error is not None
    assert (result.error.workflow, result.error.task) == ("inner", "deep")
    assert result.state["workflow-error"]["task"] == "shallow"
    assert result.state["workflow-error"]["code"] == "task_type_unknown"


async def test_a_sub_workflow_that_is_missing_fails_the_task() -> None:
    result = await World().run(workflow(call_workflow("ghost", "call")))
    assert isinstance(result.error, DefinitionMissing)
    assert result.error.task == "call"
    assert "ghost" in result.error.message


async def test_a_workflow_task_that_names_no_workflow_fails() -> None:
    result = await World().run(workflow({"type": "workflow", "name": "call"}))
    assert isinstance(result.error, DefinitionInvalid)


def nested(depth: int) -> World:
    chain = [
        workflow(
            call_workflow(f"w{n + 1}", outputs={"n": "$.get('n')"}),
            name=f"w{n}",
            outputs={"n": "$.get('n')"},
        )
        for n in range(depth)
    ]
    return World(*chain, workflow(name=f"w{depth}", outputs={"n": str(depth)}))


async def test_workflows_may_be_nested_five_deep() -> None:
    world = nested(5)
    result = await world.run(world.definitions["workflow", "w0"])
    assert (result.status, result.state["n"]) == ("executed", 5)


async def test_workflows_may_not_be_nested_six_deep() -> None:
    world = nested(6)
    result = await world.run(world.definitions["workflow", "w0"])
    assert result.error is not None
    assert result.error.code == "sandbox_limit"
    assert "w0 → w1 → w2 → w3 → w4 → w5 → w6" in result.error.message


async def test_a_circle_of_workflows_ends() -> None:
    one = workflow(call_workflow("two"), name="one")
    two = workflow(call_workflow("one"), name="two")
    result = await World(one, two).run(one)
    assert result.error is not None
    assert result.error.code == "sandbox_limit"


# credentials


def with_groups(*tasks: Any, **more: Any) -> Any:
    groups: Any = {
        "machina-ai": {"api_key": "$TEMP_CONTEXT_VARIABLE_AI", "region": "eu"},
        "mail": {"user": "$TEMP_CONTEXT_VARIABLE_MAIL", "sender": "me", "region": "us"},
        "debugger": {"enabled": True},
    }
    return workflow(*tasks, context_variables=groups, **more)


# Short enough not to be masked in what the workflow gives back.
SECRETS = {"TEMP_CONTEXT_VARIABLE_AI": "s3crt"}
SEEN = (
    "[$.get('api_key', 'none'), $.get('region'), $.get('user', 'none'), $.get('sender'),"
    " $.get('enabled', 'off')]"
)


async def test_a_task_sees_its_own_connectors_fields_before_the_state() -> None:
    task = ask(inputs={"seen": SEEN}, outputs={})
    flow = with_groups(task, outputs={"seen": "$.get('seen')"})
    result = await World().run(flow, {"api_key": "other", "region": "xx"}, secrets=SECRETS.get)
    assert result.state["seen"] == ["s3crt", "eu", "none", "me", "off"]


async def test_a_task_sees_the_state_before_the_fields_of_other_connectors() -> None:
    flow = with_groups(compute(inputs={"seen": SEEN}), outputs={"seen": "$.get('seen')"})
    result = await World().run(flow, {"region": "xx"}, secrets=SECRETS.get)
    assert result.state["seen"] == ["s3crt", "xx", "none", "me", "off"]


async def test_secrets_are_null_when_nobody_resolves_them() -> None:
    task = ask(inputs={"seen": SEEN}, outputs={})
    flow = with_groups(task, outputs={"seen": "$.get('seen')"})
    result = await World().run(flow, {"api_key": "somebody else's"})
    assert result.state["seen"] == [None, "eu", "none", "me", "off"]


async def test_a_secret_token_in_an_input_is_resolved() -> None:
    flow = workflow(
        compute(inputs={"token": "$TEMP_CONTEXT_VARIABLE_AI"}), outputs={"t": "$.get('token')"}
    )
    assert (await World().run(flow, secrets=SECRETS.get)).state["t"] == "s3crt"
    assert (await World().run(flow)).state["t"] is None
