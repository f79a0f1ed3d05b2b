"""The `mapping` task, line by line of the format's section 5.4."""

from __future__ import annotations

from typing import Any

import pytest

from machina.engine import RunResult
from tests.builders import World, workflow


async def run(
    definition: Any, task: dict[str, Any], outputs: Any = None, **payload: Any
) -> RunResult:
    world = World()
    if definition is not None:
        world.definitions["mapping", definition["name"]] = definition
    flow = workflow(
        {"type": "mapping", "name": "shape", **task}, outputs=outputs or {"got": "$.get('got')"}
    )
    return await world.run(flow, payload)


async def got(definition: Any, task: dict[str, Any], **payload: Any) -> Any:
    result = await run(definition, task, **payload)
    assert result.error is None
    return result.state["got"]


def mapping(outputs: Any, name: str = "shape", **fields: Any) -> dict[str, Any]:
    return {"name": name, "outputs": outputs, **fields}


async def test_the_definitions_outputs_see_the_inputs_and_the_tasks_see_the_result() -> None:
    definition = mapping({"full": "$.get('first') + ' ' + $.get('last')"})
    task = {
        "inputs": {"first": "$.get('a')", "last": "'B'"},
        "outputs": {"got": "[$.get('full'), $.get('first'), context.get('last'), $.get('a', 0)]"},
    }
    assert await got(definition, task, a="A") == ["A B", "A", "B", 0]


async def test_a_bare_subject_is_inputs_and_result() -> None:
    task = {"inputs": {"a": "1", "b": "2"}, "outputs": {"got": "$"}}
    assert await got(mapping({"b": "3", "c": "4"}), task) == {"a": 1, "b": 3, "c": 4}


@pytest.mark.parametrize("name", ["other-shape", "'other-shape'", "$.get('which')"])
async def test_the_configuration_may_name_the_definition(name: str) -> None:
    definition = mapping({"x": "1"}, name="other-shape")
    task = {
        "config": {"action": "transform", "mapping": name},
        "outputs": {"got": "$.get('x')"},
    }
    assert await got(definition, task, which="other-shape") == 1


async def test_a_later_output_may_read_an_earlier_one() -> None:
    definition = mapping({"a": "$.get('n') + 1", "b": "$.get('a') + 1", "c": "[$.get('b')]"})
    assert await got(definition, {"inputs": {"n": "1"}, "outputs": {"got": "$.get('c')"}}) == [3]


async def test_an_output_sees_the_input_of_its_own_name() -> None:
    definition = mapping({"n": "$.get('n') + 1", "m": "$.get('n')"})
    task = {"inputs": {"n": "1"}, "outputs": {"got": "[$.get('n'), $.get('m')]"}}
    assert await got(definition, task) == [2, 1]


async def test_outputs_may_be_nested() -> None:
    definition = mapping({"a": {"b": "$.get('n')", "c": ["$.get('n') * 2", {"d": 4}]}})
    task = {"inputs": {"n": "1"}, "outputs": {"got": "$.get('a')"}}
    assert await got(definition, task) == {"b": 1, "c": [2, {"d": 4}]}


async def test_the_definitions_inputs_are_defaults_for_missing_ones() -> None:
    definition = mapping(
        {"all": "[$.get('a'), $.get('b'), $.get('c'), $.get('d'), $.get('e')]"},
        inputs={
            "a": "5",
            "b": "$.get('a') + 1",
            "c": {"type": "integer", "default": 3},
            "d": {"type": "string"},
            "e": "7",
        },
    )
    task = {"inputs": {"a": "1", "e": "None"}, "outputs": {"got": "$.get('all')"}}
    assert await got(definition, task) == [1, 2, 3, None, None]


async def test_an_output_that_raises_is_null_and_the_others_are_there() -> None:
    definition = mapping({"bad": "len(None)", "good": "1"})
    task = {"outputs": {"got": "[$.get('bad', 0), $.get('good')]"}}
    assert await got(definition, task) == [None, 1]


async def test_a_definition_sees_the_state_as_context_only() -> None:
    definition = mapping({"x": "[$.get('s'), context.get('s')]"})
    assert await got(definition, {"outputs": {"got": "$.get('x')"}}, s=1) == [None, 1]


@pytest.mark.parametrize("config", [None, {"mapping": "gone"}, {"mapping": 7}, "text"])
async def test_an_undefined_mapping_gives_the_inputs(config: Any) -> None:
    task: dict[str, Any] = {"inputs": {"a": "1"}, "outputs": {"got": "[$.get('a'), $]"}}
    if config is not None:
        task["config"] = config
    assert await got(None, task) == [1, {"a": 1}]


async def test_a_definition_without_outputs_gives_the_inputs() -> None:
    task = {"inputs": {"a": "1"}, "outputs": {"got": "$"}}
    assert await got({"name": "shape"}, task) == {"a": 1}


@pytest.mark.parametrize("field", ["outputs", "inputs"])
async def test_a_definition_of_another_shape_fails_the_task(field: str) -> None:
    result = await run({"name": "shape", field: [1]}, {})
    assert result.error is not None
    assert result.error.code == "definition_invalid"
    assert "mapping 'shape'" in result.error.message


@pytest.mark.parametrize("field", ["outputs", "inputs"])
async def test_a_greedy_definition_fails_the_task(field: str) -> None:
    result = await run({"name": "shape", field: {"x": "'x' * 1000000000"}}, {})
    assert result.error is not None
    assert result.error.code == "sandbox_limit"
