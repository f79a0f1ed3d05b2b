"""One call asked for over the API: data in, `{status, data, message}` out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from machina.connectors.base import ConnectorReply
from machina.connectors.llm.base import Usage
from machina.engine import RunContext, RunResult, run_single
from machina.errors import ConnectorFailed, StoreDown
from tests.builders import AnsweringProvider, World

SECRETS = {"TEMP_CONTEXT_VARIABLE_KEY": "abcdefgh"}


def shop(reply: Any = None, **fields: Any) -> World:
    world = World()
    world.definitions["connector", "shop"] = {"name": "shop", "filetype": "restapi", **fields}
    world.replies["shop"] = ConnectorReply({"n": 1}) if reply is None else reply
    return world


async def run(world: World, request: dict[str, Any]) -> tuple[RunResult, RunContext]:
    context = world.context(secrets=SECRETS.get)
    return await run_single(request, context), context


CALL: dict[str, Any] = {"type": "connector", "connector": "shop", "command": "get-x"}


async def test_a_command_of_a_connector_gives_its_data() -> None:
    world = shop(ConnectorReply({"at": datetime(2026, 1, 2, tzinfo=UTC)}, {"status": True}))
    result, context = await run(world, CALL | {"inputs": {"q": 1}, "path_attribute": {"id": "7"}})
    assert result.status == "executed"
    assert result.state == {
        "status": True,
        "data": {"at": "2026-01-02T00:00:00+00:00"},
        "message": "",
    }
    [call] = world.called
    assert (call.name, call.command) == ("shop", "get-x")
    assert (call.inputs, call.attributes) == ({"q": 1}, {"id": "7"})
    assert call.definition == {"name": "shop", "filetype": "restapi"}
    assert [entry["status"] for entry in context.tasks.entries] == ["executed"]


async def test_the_connectors_own_fields_are_its_credentials() -> None:
    world = shop(**{"context-variables": {"key": "$TEMP_CONTEXT_VARIABLE_KEY", "user": "api"}})
    result, _ = await run(world, CALL)
    assert world.called[0].credentials == {"key": "abcdefgh", "user": "api"}
    assert result.status == "executed"


HOSTILE = [
    "$.get('x')",
    "len('abc')",
    "'quoted'",
    '"quoted"',
    "7",
    "$TEMP_CONTEXT_VARIABLE_KEY",
    "f\"{$.get('x')}\"",
    "it's \\x24 and $.(x)",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_value_is_an_expression(text: str) -> None:
    world = shop()
    await run(world, CALL | {"inputs": {"a": text, "b": [text]}, "path_attribute": {"c": text}})
    [call] = world.called
    assert (call.inputs, call.attributes) == ({"a": text, "b": [text]}, {"c": text})


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_value_of_a_prompts_block_is_an_expression(text: str) -> None:
    world = World()
    request = {
        "type": "prompt",
        "prompt": "p",
        "inputs": {"q": text},
        "connector": {"name": "machina-ai", "model": text},
    }
    world.definitions["prompt", "p"] = {"name": "p", "instruction": "Say"}
    result, _ = await run(world, request)
    assert result.status == "executed"
    assert world.connectors[-1]["model"] == text
    asked = world.llm.requests[0].messages  # type: ignore[attr-defined]  # the world's own
    assert text in str(asked[-1]["content"])


@pytest.mark.parametrize("text", HOSTILE)
async def test_no_value_of_a_block_that_a_connector_answers_is_an_expression(text: str) -> None:
    world = shop()
    world.definitions["prompt", "p"] = {"name": "p", "instruction": "Say"}
    request = {
        "type": "prompt",
        "prompt": "p",
        "inputs": {"q": "Where?"},
        "connector": {
            "name": "shop",
            "command": "get-items",
            "model": text,
            "inputs": {"a": text},
            "command_attribute": {"b": [text]},
            "headers": {"X-City": text},
        },
    }
    result, _ = await run(world, request)
    assert result.status == "executed"
    [call] = world.called
    assert call.inputs["body"]["model"] == text
    assert call.inputs["a"] == text
    assert (call.attributes, call.block["headers"]) == ({"b": [text]}, {"X-City": text})


async def test_a_failure_is_a_state_with_a_message_and_a_failed_run() -> None:
    result, context = await run(shop(ConnectorFailed("HTTP 500", code="connector_failed")), CALL)
    assert result.status == "failed"
    assert result.state == {"status": False, "data": None, "message": "HTTP 500"}
    assert result.error is not None
    assert result.error.code == "connector_failed"
    assert context.tasks.entries[0]["error"]["code"] == "connector_failed"


async def test_a_failure_for_want_of_a_secret_names_the_secret() -> None:
    fields = {"key": "$TEMP_CONTEXT_VARIABLE_NOBODY"}
    world = shop(ConnectorFailed("HTTP 401"), **{"context-variables": fields})
    result, _ = await run(world, CALL)
    assert result.error is not None
    assert result.error.code == "secret_missing"
    assert "TEMP_CONTEXT_VARIABLE_NOBODY" in result.error.message


async def test_a_secret_in_a_message_is_masked() -> None:
    fields = {"key": "$TEMP_CONTEXT_VARIABLE_KEY"}
    world = shop(ConnectorFailed("bad key abcdefgh"), **{"context-variables": fields})
    result, _ = await run(world, CALL)
    assert result.state["message"] == "bad key ***"


async def test_the_message_of_a_success_is_the_connectors() -> None:
    reply = ConnectorReply("text", {"status": True, "message": "done"})
    result, _ = await run(shop(reply), CALL)
    assert result.state == {"status": True, "data": "text", "message": "done"}
    assert result.content == "text"


async def test_a_prompt_gives_its_answer() -> None:
    world = World(provider=AnsweringProvider("fine", usage=Usage(1, 2)))
    world.definitions["prompt", "p"] = {"name": "p", "instruction": "Greet {who}"}
    request = {"type": "prompt", "prompt": "p", "inputs": {"who": "Ada"}}
    result, context = await run(world, request)
    assert result.state == {"status": True, "data": "fine", "message": ""}
    assert result.content == "fine"
    assert type(result.state["data"]) is str
    assert context.tokens["total_tokens"] == 3


async def test_a_prompt_with_a_schema_gives_an_object() -> None:
    world = World(provider=AnsweringProvider('{"title": "x"}'))
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    world.definitions["prompt", "p"] = {"name": "p", "schema": schema}
    result, _ = await run(world, {"type": "prompt", "prompt": "p", "inputs": {"q": 1}})
    assert result.state["data"] == {"title": "x"}


async def test_a_prompt_that_is_not_installed_fails() -> None:
    result, _ = await run(World(), {"type": "prompt", "prompt": "ghost", "inputs": {"q": 1}})
    assert result.error is not None
    assert result.error.code == "definition_missing"
    assert result.state["status"] is False


async def test_texts_are_embedded() -> None:
    request = {"type": "embedding", "connector": {"name": "google-genai"}}
    result, _ = await run(World(), request | {"inputs": {"texts": ["a", "b"]}})
    assert len(result.state["data"]) == 2
    one, _ = await run(World(), request | {"inputs": {"text": "a"}})
    assert one.state["data"] == result.state["data"][0]


@pytest.mark.parametrize("inputs", [{}, {"texts": []}, {"texts": "", "x": 1}, {"texts": [1]}])
async def test_an_embedding_without_texts_fails(inputs: Any) -> None:
    result, _ = await run(World(), {"type": "embedding", "inputs": inputs})
    assert result.error is not None
    assert result.error.code == "definition_invalid"


async def test_the_commands_of_a_models_connector_are_served_by_us() -> None:
    world = World()
    request = {"type": "connector", "connector": "google-genai", "inputs": {"q": "hello"}}
    said, _ = await run(world, request | {"command": "invoke_prompt"})
    assert said.state["data"] == "fine"
    vector, _ = await run(
        world, request | {"command": "invoke_embedding", "inputs": {"text": "hello"}}
    )
    assert isinstance(vector.state["data"][0], float)
    assert world.called == []


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"type": "teleport"},
        {"type": "connector"},
        {"type": "connector", "connector": "shop"},
        CALL | {"inputs": [1]},
        CALL | {"connector": {"name": "shop"}},
        {"type": "prompt"},
        {"type": "prompt", "prompt": "p", "connector": {"name": "x" * 3_000 + "$"}},
        {"type": "embedding", "inputs": {"text": "x"}, "connector": "name"},
    ],
)
async def test_a_request_of_the_wrong_shape_fails_with_a_sentence(request_: Any) -> None:
    world = shop()
    world.definitions["prompt", "p"] = {"name": "p", "instruction": "x"}
    result, _ = await run(world, request_)
    assert result.error is not None
    assert result.error.code == "definition_invalid"


async def test_a_later_attempt_notes_that_the_call_may_have_happened() -> None:
    context = shop().context(in_doubt=True)
    await run_single(CALL, context)
    assert context.repeated == [{"workflow": "", "task": "shop"}]


async def test_a_store_that_is_away_ends_the_attempt_and_not_the_run() -> None:
    class Lost(World):
        async def definition(self, kind: str, name: str) -> dict[str, Any] | None:
            raise StoreDown

    with pytest.raises(StoreDown):
        await run(Lost(), CALL)
