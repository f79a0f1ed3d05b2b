from __future__ import annotations

from typing import Any

import pytest

from machina.definitions import (
    Agent,
    Kind,
    Prompt,
    Step,
    Task,
    Workflow,
    check_name,
    is_declaration,
)
from machina.errors import DefinitionInvalid, Invalid


@pytest.mark.parametrize("name", ["hello", "sport:Event", "xAI Grok", "ação", "a" * 200, "1"])
def test_a_name_is_accepted_when_it_is_printable(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a\nb", "a\x00b", "a" * 201, None, 7, ["a"]])
def test_a_name_is_refused_when_it_breaks_the_rule(name: Any) -> None:
    with pytest.raises(Invalid) as refused:
        check_name(name)
    assert refused.value.field == "name"


def test_kinds_are_the_root_keys_of_files() -> None:
    assert [*Kind] == ["agent", "workflow", "connector", "prompt", "mapping", "skill"]


@pytest.mark.parametrize(
    "value",
    [
        {"type": "integer", "default": 3},
        {"type": "string", "description": "$.get('x') is text here", "required": True},
        {"type": ["object", "null"], "properties": {}},
    ],
)
def test_an_input_is_a_declaration_when_it_looks_like_a_schema(value: Any) -> None:
    assert is_declaration(value)


@pytest.mark.parametrize(
    "value",
    [
        "$.get('x')",
        {"a": "$.get('x')"},
        {"type": "$.get('kind')"},
        {"type": "string", "value": "$.get('x')"},
        {"type": []},
        {},
    ],
)
def test_an_input_is_computed_when_it_does_not_look_like_a_schema(value: Any) -> None:
    assert not is_declaration(value)


def test_a_task_has_both_conditions_when_it_writes_both_synonyms() -> None:
    task = Task.read({"type": "prompt", "name": "t", "condition": "a", "when": False})
    assert task.conditions == ("a", False)


def test_a_step_has_both_conditions_when_it_writes_both_synonyms() -> None:
    step = Step.read({"name": "s", "gate": "b", "condition": "a"})
    assert step.conditions == ("a", "b")


def test_absent_and_null_blocks_are_empty() -> None:
    workflow = Workflow.read({"name": "w", "inputs": None})
    assert (workflow.inputs, workflow.outputs, workflow.tasks) == ({}, {}, [])
    task = Task.read({"name": "t", "foreach": None})
    assert task.foreach is None
    assert not task.continue_on_error


def test_a_nameless_part_is_called_by_its_kind() -> None:
    assert Task.read({}).name == "unnamed task"
    assert Workflow.read({"name": ""}).title == "unnamed workflow"


def test_a_loop_is_read_without_its_expr() -> None:
    raw = {"name": "t", "foreach": {"name": "city", "expr": "$", "value": "$.get('c')"}}
    loop = Task.read(raw).foreach
    assert loop is not None
    assert (loop.name, loop.value, loop.concurrent) == ("city", "$.get('c')", False)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"name": "w", "tasks": {"a": 1}}, "'tasks' of workflow 'w' must be a list, not dict"),
        ({"name": "w", "tasks": ["a"]}, "'tasks, item 1' of workflow 'w' must be a dictionary"),
        ({"name": "w", "outputs": "x"}, "'outputs' of workflow 'w' must be a dictionary, not str"),
    ],
)
def test_a_broken_shape_is_named_when_a_definition_is_read(raw: Any, words: str) -> None:
    with pytest.raises(DefinitionInvalid, match=words):
        Workflow.read(raw)


def test_an_agent_reads_context_variables_in_both_forms() -> None:
    groups = {"llm": {"api_key": "$TEMP_CONTEXT_VARIABLE_X"}}
    parameters = [{"name": "team", "default": "'home'"}]
    assert Agent.read({"name": "a", "context-variables": groups}).context_variables == groups
    agent = Agent.read({"name": "a", "context-variables": parameters})
    assert agent.parameters == parameters
    assert agent.context_variables == {}


@pytest.mark.parametrize("key", ["entry-point", "entry_point"])
def test_an_agent_has_one_workflow_when_it_is_just_an_entry_point(key: str) -> None:
    agent = Agent.read({"name": "a", "type": "workflow", key: "main"})
    assert (agent.entry_point, agent.total_workflows) == ("main", 1)


def test_a_step_is_unsupported_when_it_is_no_workflow() -> None:
    assert Step.read({"name": "s", "type": "mapping", "config": {}}).unsupported == "mapping"
    assert Step.read({"name": "s", "type": "workflow"}).unsupported is None


@pytest.mark.parametrize(
    "key", ["instruction", "instructions", "template", "prompt", "text", "messages"]
)
def test_a_prompt_reads_its_instruction_under_every_synonym(key: str) -> None:
    assert Prompt.read({"name": "p", key: "Be brief."}).instruction == "Be brief."


def test_a_prompt_without_text_and_schema_has_neither() -> None:
    prompt = Prompt.read({"name": "p", "instruction": "", "schema": {}})
    assert prompt.instruction is None
    assert prompt.schema is None
