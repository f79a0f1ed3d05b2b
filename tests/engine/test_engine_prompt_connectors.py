"""Which connector answers a prompt task, and prompts through REST and script connectors."""

from __future__ import annotations

from typing import Any

import pytest

from machina.connectors.base import ConnectorReply
from machina.connectors.llm.base import Usage
from machina.engine import run_workflow
from machina.errors import ConnectorFailed, TaskFailed
from machina.events import Event
from tests.builders import AnsweringProvider, World, ask, workflow

COMPLETION = {
    "choices": [{"message": {"role": "assistant", "content": "Rome."}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}


def task(name: Any = "perplexity", command: Any = "post-chat/completions", **more: Any) -> Any:
    block = {"name": name, "command": command, **more.pop("block", {})}
    made = ask(inputs={"q": "'Where?'"}, **more)
    made["connector"] = {key: value for key, value in block.items() if value is not None}
    return made


def installed(world: World, name: str, **definition: Any) -> World:
    world.definitions["connector", name] = {"name": name, **definition}
    return world


def rest_world(data: Any = COMPLETION, **more: Any) -> World:
    world = installed(World(**more), "perplexity", filetype="restapi")
    world.replies["perplexity"] = ConnectorReply(data)
    return world


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("google-genai", "invoke_prompt"),
        ("google-genai", None),
        ("google-genai", " "),
        ("nvidia-nim", "invoke_chat"),
        (None, None),
    ],
)
async def test_the_model_answers_for_a_models_connector(name: Any, command: Any) -> None:
    provider = AnsweringProvider("fine")
    world = World(provider=provider)
    result = await world.run(workflow(task(name, command), outputs={"a": "$.get('answer')"}))
    assert result.state["a"] == "fine"
    assert world.connectors[0].get("command") in ("invoke_prompt", "invoke_chat")
    assert not world.called


@pytest.mark.parametrize("filetype", ["pyscript", "restapi", None])
async def test_an_installed_connector_of_any_name_is_a_model_when_it_is_asked_to_be(
    filetype: str | None,
) -> None:
    world = installed(World(), "my-own-llm", filetype=filetype)
    result = await world.run(
        workflow(task("my-own-llm", "invoke_prompt"), outputs={"a": "$.get('answer')"})
    )
    assert result.state["a"] == "fine"
    assert not world.called  # no script runs for a prompt


@pytest.mark.parametrize("name", ["machina-gcp-ai", "xAI Grok", "ask", 7])
@pytest.mark.parametrize("inputs", [{"q": "1"}, {}])
async def test_a_connector_that_nobody_knows_is_not_found(name: Any, inputs: Any) -> None:
    broken = task(name, "invoke_prompt")
    broken["inputs"] = inputs
    result = await World(prompts=[{"name": "ask"}]).run(workflow(broken))
    assert isinstance(result.error, ConnectorFailed)
    assert result.error.code == "connector_not_found"
    assert str(name) in result.error.message


async def test_another_command_of_a_models_connector_is_a_call_like_any_other() -> None:
    result = await World().run(workflow(task("groq", "list_models")))
    assert isinstance(result.error, ConnectorFailed)
    assert result.error.code == "connector_not_found"


# REST


async def test_a_rest_connector_gets_the_messages_as_the_body_of_a_chat_completion() -> None:
    prompt = {"name": "ask", "instruction": "About {q}"}
    world = rest_world(prompts=[prompt])
    asked = task(
        block={"model": "sonar", "command_attribute": {"id": "$.get('n')"}},
        outputs={
            "text": "$.get('choices')[0].get('message').get('content')",
            "all": "$",
            "none": "$.get('result', 'none')",
        },
    )
    asked["inputs"] |= {"temperature": 0.5, "max_tokens": "20", "empty": None}
    flow = workflow(asked, outputs={k: f"$.get('{k}')" for k in ("text", "all", "none")})
    flow["context-variables"] = {"perplexity": {"api_key": "fixed"}}
    result = await world.run(flow, {"n": 3})
    assert result.state["text"] == "Rome."
    assert result.state["all"] == COMPLETION
    assert result.state["none"] == "none"
    (call,) = world.called
    assert (call.name, call.command) == ("perplexity", "post-chat/completions")
    assert call.definition is not None
    assert call.inputs == {
        "body": {
            "model": "sonar",
            "messages": [
                {"role": "system", "content": "About Where?"},
                {"role": "user", "content": "q:\nWhere?"},
            ],
            "temperature": 0.5,
            "max_tokens": 20,
        }
    }
    assert call.attributes == {"id": 3}
    assert call.credentials["api_key"] == "fixed"


@pytest.mark.parametrize("filetype", ["restapi", "pyscript"])
async def test_what_was_computed_for_the_block_is_data_and_never_evaluated(filetype: str) -> None:
    world = installed(World(), "perplexity", filetype=filetype)
    world.replies["perplexity"] = ConnectorReply(COMPLETION)
    hostile = "$TEMP_CONTEXT_VARIABLE_API_KEY"
    nested = {"text": hostile, "list": ["$.get('said')", "1 + 1"]}
    block = {
        "model": "$.get('said')",
        "headers": {"X-City": "$.get('said')", "X-All": "$.get('nested')"},
        "all": "$.get('nested')",
        "command_attribute": {"id": "$.get('said')"},
        "inputs": {"inner": "$.get('said')", "context": "context.get('said')"},
        "extra": "context.get('said')",
    }
    context = world.context(secrets={"TEMP_CONTEXT_VARIABLE_API_KEY": "classified"}.get)
    payload = {"said": hostile, "nested": nested}
    result = await run_workflow(workflow(task(block=block)), payload, context)
    assert result.status == "executed"
    [call] = world.called
    assert call.block["model"] == call.block["extra"] == hostile
    assert call.block["headers"] == {"X-City": hostile, "X-All": nested}
    assert call.block["all"] == nested
    assert call.attributes == {"id": hostile}
    assert (call.inputs["inner"], call.inputs["context"]) == (hostile, hostile)
    assert "classified" not in str((call.inputs, call.attributes, call.block))


async def test_a_failed_call_names_the_secret_of_the_block_that_has_no_value() -> None:
    world = installed(World(), "perplexity", filetype="restapi")
    world.replies["perplexity"] = ConnectorFailed("HTTP 401", code="connector_failed")
    block = {"token": "$TEMP_CONTEXT_VARIABLE_API_KEY"}
    result = await world.run(workflow(task(block=block)))
    assert result.error is not None
    assert result.error.code == "secret_missing"
    assert "TEMP_CONTEXT_VARIABLE_API_KEY" in result.error.message


async def test_the_tasks_own_body_has_the_last_word() -> None:
    world = rest_world()
    asked = task(block={"model": "sonar"})
    asked["inputs"] = {"body": "{'model': 'mine', 'messages': [{'role': 'user', 'content': 'x'}]}"}
    await world.run(workflow(asked))
    assert world.called[0].inputs["body"] == {
        "model": "mine",
        "messages": [{"role": "user", "content": "x"}],
    }


async def test_the_tokens_of_a_rest_answer_are_counted() -> None:
    world = rest_world()
    context = world.context()
    await run_workflow(workflow(task()), {}, context)
    assert context.tokens == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


async def test_a_rest_answer_that_is_text_is_free_text() -> None:
    world = rest_world("Rome.")
    asked = task(outputs={"a": "$.get('content')", "b": "$"})
    result = await world.run(workflow(asked, outputs={k: f"$.get('{k}')" for k in "ab"}))
    assert (result.state["a"], result.state["b"]) == ("Rome.", "Rome.")


@pytest.mark.parametrize(
    ("content", "title"), [('{"title": "A"}', "A"), ("no", "none"), ("", "none")]
)
async def test_a_schema_finds_its_fields_in_the_text_of_a_rest_answer(
    content: str, title: str
) -> None:
    data = {"choices": [{"message": {"content": content}}]}
    world = rest_world(data, prompts=[{"name": "ask", "schema": SCHEMA}])
    asked = task(outputs={"title": "$.get('title', 'none')", "all": "$"})
    result = await world.run(
        workflow(asked, outputs={k: f"$.get('{k}')" for k in ("title", "all")})
    )
    assert (result.state["title"], result.state["all"]) == (title, data)


@pytest.mark.parametrize("data", [None, [], {"choices": []}, {"choices": [{"message": None}]}])
async def test_a_rest_answer_of_any_shape_is_the_answer(data: Any) -> None:
    result = await rest_world(data).run(workflow(task(), outputs={"a": "$.get('answer')"}))
    assert result.error is None
    assert result.state["a"] == data


async def test_the_text_of_a_rest_answer_is_said_when_the_task_streams() -> None:
    world = rest_world()
    context = world.context(streamed=True)
    await run_workflow(workflow(task(block={"stream": True})), {}, context)
    assert world.events == [Event("content", "Rome.", {"partial": True})]


async def test_a_failure_of_the_connector_is_the_tasks() -> None:
    world = rest_world()
    world.replies["perplexity"] = ConnectorFailed("It refused.")
    result = await world.run(workflow(task()))
    assert isinstance(result.error, ConnectorFailed)
    assert result.error.message.startswith("It refused")


# scripts


@pytest.mark.parametrize(
    "definition",
    [
        {"filetype": "pyscript"},
        {"filetype": " PyScript"},
        {"filename": "finder.py", "filecontent": "def invoke_search(request): ..."},
    ],
)
async def test_a_script_gets_the_inputs_and_the_messages(definition: Any) -> None:
    world = installed(World(), "finder", **definition)
    world.replies["finder"] = ConnectorReply({"answer": "x"}, {"status": True, "note": "y"})
    asked = task("finder", "invoke_search", outputs={"a": "$.get('answer')", "n": "$.get('note')"})
    result = await world.run(workflow(asked, outputs={k: f"$.get('{k}')" for k in "an"}))
    assert (result.state["a"], result.state["n"]) == ("x", "y")
    assert world.called[0].inputs == {
        "q": "Where?",
        "messages": [{"role": "user", "content": "q:\nWhere?"}],
    }


# credentials


async def test_the_connectors_credentials_are_not_told_to_the_model() -> None:
    provider = AnsweringProvider("fine", usage=Usage(1, 1))
    asked = task("google-genai", "invoke_prompt")
    asked["inputs"] |= {"api_key": "$.get('api_key')", "project_id": "'mine'"}
    flow = workflow(asked)
    flow["context-variables"] = {"google-genai": {"api_key": "k-123", "project_id": "theirs"}}
    await World(provider=provider).run(flow)
    (request,) = provider.requests
    assert request.messages == [{"role": "user", "content": "q:\nWhere?\n\nproject_id:\nmine"}]


async def test_nothing_to_ask_is_said_so() -> None:
    empty = task("google-genai", "invoke_prompt")
    empty["inputs"] = {"q": "None"}
    result = await World(prompts=[{"name": "ask"}]).run(workflow(empty))
    assert isinstance(result.error, TaskFailed)
    assert "has nothing to ask" in result.error.message
