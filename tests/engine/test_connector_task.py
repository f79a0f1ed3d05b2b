"""The `connector` task: what is evaluated, what reaches the connector, what `$` is afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.engine import RunResult, run_workflow
from machina.errors import ConnectorFailed
from tests.builders import Definition, World, compute, workflow

TOKEN = "$TEMP_CONTEXT_VARIABLE_SHOP_KEY"
SECRETS = {"TEMP_CONTEXT_VARIABLE_SHOP_KEY": "sk-canary-0123456789"}


def call_shop(
    *, inputs: Any = None, outputs: Any = None, connector: Any = None, **more: Any
) -> Definition:
    """A task that calls `get` of the connector `shop`."""
    return {
        "type": "connector",
        "name": "ask-shop",
        "connector": {"name": "shop", "command": "get", **(connector or {})},
        "inputs": inputs or {},
        "outputs": outputs or {},
        **more,
    }


class Shops(World):
    """A world with the connector `shop`, which answers `data` in `envelope`."""

    def __init__(
        self, data: Any = None, envelope: Mapping[str, Any] | None = None, **definition: Any
    ) -> None:
        super().__init__()
        self.definitions["connector", "shop"] = {"name": "shop", **definition}
        self.replies["shop"] = ConnectorReply(data, envelope or {"status": True})

    def fails(self, code: str = "connector_failed") -> None:
        """The shop says no from now on."""
        self.replies["shop"] = ConnectorFailed("The shop said no.", code=code)

    @property
    def call(self) -> ConnectorCall:
        return self.called[-1]


async def called(task: Definition, payload: Any = None, **flow: Any) -> ConnectorCall:
    """The call that a task makes."""
    world = Shops()
    result = await world.run(workflow(task, **flow), payload or {}, secrets=SECRETS.get)
    assert result.error is None
    return world.call


async def told(outputs: Any, data: Any, envelope: Any = None, payload: Any = None) -> Any:
    """What outputs read from an answer."""
    flow = workflow(call_shop(outputs=outputs), outputs={k: f"$.get('{k}')" for k in outputs})
    state = (await Shops(data, envelope).run(flow, payload or {})).state
    return {key: state[key] for key in outputs}


# what reaches the connector


async def test_a_call_carries_what_was_evaluated() -> None:
    call = await called(
        call_shop(
            inputs={"limit": "$.get('n') * 2", "text": "plain-text", "list": ["$.get('n')", 5]},
            connector={"command_attribute": {"id": "$.get('id')", "fixed": "'x'", "n": 3}},
        ),
        {"n": 4, "id": "ns:7"},
    )

    assert (call.name, call.command, call.run_id) == ("shop", "get", "65f000000000000000000001")
    assert dict(call.inputs) == {"limit": 8, "text": "plain-text", "list": [4, 5]}
    assert dict(call.attributes) == {"id": "ns:7", "fixed": "x", "n": 3}
    assert call.definition == {"name": "shop"}
    assert call.timeout_seconds is None
    assert "ask-shop" in call.where
    assert "flow" in call.where


async def test_the_plural_of_command_attribute_is_a_synonym() -> None:
    both = {"command_attributes": {"a": "1", "b": "1"}, "command_attribute": {"b": "2"}}

    assert dict((await called(call_shop(connector=both))).attributes) == {"a": 1, "b": 2}


async def test_inputs_inside_the_connector_block_count_below_the_tasks_own() -> None:
    task = call_shop(
        inputs={"b": "$.get('n')"}, connector={"inputs": {"a": "$.get('n')", "b": "0"}}
    )

    assert dict((await called(task, {"n": 1})).inputs) == {"a": 1, "b": 1}


async def test_attributes_see_the_inputs_of_their_task() -> None:
    task = call_shop(inputs={"id": "'i'"}, connector={"command_attribute": {"id": "$.get('id')"}})

    assert dict((await called(task)).attributes) == {"id": "i"}


async def test_the_block_is_evaluated_and_plain_texts_in_it_stay() -> None:
    block = {
        "url": "https://api.example.test/x",
        "model": "flash-2-voice",
        "provider": "vertex_ai",
        "location": "$.get('place')",
        "headers": {"Authorization": TOKEN, "X-A": "Bearer $TEMP_X", "X-B": "$.get('place')"},
    }

    call = await called(call_shop(connector=block), {"place": "eu"})

    assert dict(call.block) == {
        **block,
        "location": "eu",
        "headers": {
            "Authorization": "sk-canary-0123456789",
            "X-A": "Bearer $TEMP_X",
            "X-B": "eu",
        },
    }


async def test_a_computed_url_is_computed() -> None:
    block = {"url": "f\"https://{$.get('host')}/x\""}

    assert (await called(call_shop(connector=block), {"host": "a.test"})).block == {
        "url": "https://a.test/x"
    }


async def test_names_in_the_block_are_no_expressions() -> None:
    world = Shops()
    world.replies["len"] = ConnectorReply(None)
    await world.run(workflow(call_shop(connector={"name": "len", "command": " get-{id}/1 + 1 "})))

    assert (world.call.name, world.call.command) == ("len", "get-{id}/1 + 1")
    assert world.call.definition is None


async def test_a_timeout_is_an_input_like_any_other() -> None:
    call = await called(call_shop(inputs={"timeout": "30"}))

    assert (dict(call.inputs), call.timeout_seconds) == ({"timeout": 30}, None)


async def test_an_input_that_raises_is_null_and_the_call_is_made() -> None:
    assert dict((await called(call_shop(inputs={"a": "len(5)", "b": "1"}))).inputs) == {
        "a": None,
        "b": 1,
    }


@pytest.mark.parametrize("field", ["command_attribute", "command_attributes", "inputs"])
async def test_an_attribute_that_raises_fails_the_task(field: str) -> None:
    world = Shops()
    result = await world.run(workflow(call_shop(connector={field: {"id": "len(5)"}})))

    assert result.error is not None
    assert result.error.code == "expression_error"
    assert f"connector.{field}.id" in result.error.message
    assert world.called == []


@pytest.mark.parametrize(
    "connector",
    [
        {"name": None},
        {"name": ""},
        {"command": None},
        {"command": 5},
        {"command_attribute": "x"},
        {"command_attributes": [1]},
        {"inputs": "x"},
    ],
)
async def test_a_block_of_the_wrong_shape_fails_with_its_field(connector: Any) -> None:
    result = await Shops().run(workflow(call_shop(connector=connector)))

    assert result.error is not None
    assert result.error.code == "definition_invalid"
    assert f"connector.{next(iter(connector))}" in result.error.message


async def test_every_item_of_a_loop_is_a_call_of_its_own() -> None:
    world = Shops({"v": 1})
    task = call_shop(
        inputs={"place": "$.get('city')"},
        outputs={"found": "[{'city': context.get('city'), 'v': $.get('v')}]"},
        connector={"command_attribute": {"c": "$.get('city')"}},
        foreach={"name": "city", "expr": "$", "value": "$.get('cities')", "concurrent": True},
    )

    result = await world.run(
        workflow(task, outputs={"found": "$.get('found')"}), {"cities": ["a", "b"]}
    )

    assert [(dict(c.inputs), dict(c.attributes)) for c in world.called] == [
        ({"place": "a"}, {"c": "a"}),
        ({"place": "b"}, {"c": "b"}),
    ]
    assert result.state["found"] == [{"city": "a", "v": 1}, {"city": "b", "v": 1}]


# credentials


async def test_credentials_are_the_groups_and_below_them_the_connectors_own() -> None:
    world = Shops(**{"context-variables": {"key": TOKEN, "site": "de", "extra": "x"}})
    groups = {"shop": {"site": "fr"}, "other": {"key": "theirs"}}

    await world.run(workflow(call_shop(), context_variables=groups), secrets=SECRETS.get)

    assert dict(world.call.credentials) == {
        "site": "fr",
        "key": "sk-canary-0123456789",
        "extra": "x",
    }


async def test_credentials_hide_the_state_in_the_tasks_own_expressions() -> None:
    task = call_shop(
        inputs={"key": "$.get('key')"}, connector={"command_attribute": {"k": "$.get('key')"}}
    )
    flow = {"context_variables": {"shop": {"key": TOKEN}}}

    call = await called(task, {"key": "of the state"}, **flow)

    assert call.inputs["key"] == call.attributes["k"] == "sk-canary-0123456789"


async def failure(world: World, task: Definition, **flow: Any) -> Any:
    result = await world.run(workflow(task, **flow), secrets=SECRETS.get)
    assert result.error is not None
    return result.error


MISSING = "$TEMP_CONTEXT_VARIABLE_NOBODY_SET"


@pytest.mark.parametrize(
    ("task", "flow"),
    [
        (call_shop(), {"context_variables": {"shop": {"key": MISSING, "other": "x"}}}),
        (call_shop(connector={"headers": {"X-Key": MISSING}}), {}),
        (call_shop(connector={"url": MISSING}), {}),
        (call_shop(connector={"command_attribute": {"k": MISSING}}), {}),
        (call_shop(connector={"inputs": {"k": MISSING}}), {}),
        (call_shop(inputs={"k": MISSING}), {}),
    ],
)
async def test_a_failure_names_the_secret_that_has_no_value(task: Any, flow: Any) -> None:
    world = Shops()
    world.fails()

    error = await failure(world, task, **flow)

    assert error.code == "secret_missing"
    assert "The shop said no. The secret TEMP_CONTEXT_VARIABLE_NOBODY_SET has" in error.message


async def test_a_secret_of_the_connectors_own_that_has_no_value_is_named_too() -> None:
    world = Shops(**{"context-variables": {"key": MISSING, "two": "$MACHINA_CONTEXT_VARIABLE_B"}})
    world.fails()

    error = await failure(world, call_shop())

    assert "TEMP_CONTEXT_VARIABLE_NOBODY_SET, MACHINA_CONTEXT_VARIABLE_B have" in error.message


@pytest.mark.parametrize(
    "flow",
    [
        {},
        {"context_variables": {"shop": {"key": TOKEN}}},
        {"context_variables": {"other": {"key": MISSING}}},
        {"context_variables": {"shop": {"site": None}}},
    ],
)
async def test_a_failure_that_no_secret_explains_stays_what_it_is(flow: Any) -> None:
    world = Shops()
    world.fails()

    assert (await failure(world, call_shop(), **flow)).code == "connector_failed"


async def test_the_connectors_own_value_makes_up_for_a_missing_secret() -> None:
    world = Shops(**{"context-variables": {"key": "default"}})
    world.fails()

    error = await failure(world, call_shop(), context_variables={"shop": {"key": MISSING}})

    assert error.code == "connector_failed"


@pytest.mark.parametrize(
    "code",
    [
        "connector_not_found",
        "command_unknown",
        "package_missing",
        "egress_refused",
        "sandbox_limit",
    ],
)
async def test_other_failures_keep_their_code_whatever_is_missing(code: str) -> None:
    world = Shops()
    world.fails(code)

    error = await failure(world, call_shop(), context_variables={"shop": {"key": MISSING}})

    assert error.code == code


async def test_a_missing_secret_fails_nothing_by_itself() -> None:
    world = Shops({"fine": True})
    flow = workflow(
        call_shop(outputs={"fine": "$.get('fine')"}),
        context_variables={"shop": {"key": MISSING}},
        outputs={"fine": "$.get('fine')"},
    )

    assert (await world.run(flow)).state["fine"] is True


# what `$` is in the outputs


@pytest.mark.parametrize(
    ("data", "source", "value"),
    [
        ({"path": "a.png"}, "$.get('path')", "a.png"),
        ({"path": "a.png"}, "$", {"path": "a.png"}),
        ({"path": "a.png"}, "$.get('nothing', 7)", 7),
        ({"path": "a.png"}, "$.get('data')", {"path": "a.png"}),
        ({"path": "a.png"}, "$.get('data', {}).get('url') or $.get('path')", "a.png"),
        ({"data": [1], "status": "ok"}, "$.get('data', {}) if $.get('status') else {}", [1]),
        ({"path": 1}, "$.get('status')", True),
        ({"path": 1}, "$.get('message')", "hello"),
        ({"path": 1}, "$.get('trace')", "t-1"),
        ({"message": "inner"}, "$.get('message')", "inner"),
        ([1, 2], "$.get('data')", [1, 2]),
        ([1, 2], "$", [1, 2]),
        ([1, 2], "$.get('message', 'none')", "none"),
        ("text", "$.get('data')", "text"),
        ("text", "$.get('status', 0)", 0),
        (None, "$", None),
        (None, "$.get('x', 'd')", "d"),
        (None, "$.get('data', 'd')", "d"),
        ({"a": {"b": 1}}, "$.get('a.b')", 1),
    ],
)
async def test_outputs_read_the_unwrapped_result(data: Any, source: str, value: Any) -> None:
    envelope = {"status": True, "message": "hello", "trace": "t-1"}
    assert await told({"out": source}, data, envelope) == {"out": value}


async def test_outputs_do_not_fall_back_to_the_state() -> None:
    outputs = {"a": "$.get('who', 'nobody')", "b": "context.get('who')", "c": "$.(who)"}

    assert await told(outputs, {"x": 1}, payload={"who": "Ada"}) == {
        "a": "nobody",
        "b": "Ada",
        "c": "Ada",
    }


async def test_an_output_may_read_an_earlier_one_of_its_task() -> None:
    outputs = {"n": "$.get('x') + 1", "m": "$.get('n') + 1"}

    assert await told(outputs, {"x": 1}) == {"n": 2, "m": 3}


async def test_a_task_may_have_no_outputs() -> None:
    world = Shops({"x": 1})
    flow = workflow(call_shop(), compute(outputs={"y": "$.get('x')"}), outputs={"y": "$.get('y')"})

    assert (await world.run(flow)).state["y"] is None
    assert len(world.called) == 1


# failures


async def run_failing(**task: Any) -> tuple[RunResult, World]:
    world = Shops()
    world.fails()
    flow = workflow(
        call_shop(outputs={"x": "1"}, **task),
        compute(outputs={"later": "'yes'"}),
        outputs={"later": "$.get('later')", "x": "$.get('x')"},
    )
    return await world.run(flow), world


async def test_a_failure_ends_the_workflow_with_the_code() -> None:
    result, _ = await run_failing()

    assert result.state["workflow-status"] == "failed"
    assert result.state["workflow-error"]["code"] == "connector_failed"
    assert result.state["workflow-error"]["task"] == "ask-shop"
    assert result.state["later"] is None


async def test_a_failure_is_passed_over_when_the_task_says_so() -> None:
    result, _ = await run_failing(continue_on_error=True)

    assert result.error is None
    assert (result.state["later"], result.state["x"]) == ("yes", None)


async def test_a_skipped_task_calls_nothing() -> None:
    result, world = await run_failing(condition="$.get('go') is True")

    assert result.error is None
    assert world.called == []


async def test_what_a_model_costs_that_answers_for_its_connector_is_counted() -> None:
    world = Shops()
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    world.replies["groq"] = world.replies["shop"] = ConnectorReply("x", {"usage": usage})
    pair = {"name": "groq", "command": "invoke_prompt"}
    tasks = [
        call_shop(connector=connector)
        for connector in (pair, pair | {"command": "list_models"}, {"command": "invoke_prompt"})
    ]
    context = world.context()

    await run_workflow(workflow(*tasks), {}, context)

    assert context.tokens == usage
