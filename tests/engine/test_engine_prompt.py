from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from machina.connectors.llm import OpenAICompatibleProvider
from machina.connectors.llm.base import Usage
from machina.connectors.llm.scripted import ScriptedProvider
from machina.engine import run_workflow
from machina.engine.context import MAX_PIECE, MAX_SAID_BYTES
from machina.errors import ModelFailed, TaskFailed
from machina.events import Event
from tests.builders import AnsweringProvider, World, agent, ask, step, workflow
from tests.provider_server import ProviderServer

MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "timestamp": 1}]
SCHEMA = {"type": "object", "title": "T", "properties": {"title": {"type": "string"}}}


def asked(provider: AnsweringProvider) -> Any:
    (request,) = provider.requests
    return request


async def test_the_model_gets_exactly_the_callers_messages() -> None:
    provider = AnsweringProvider("fine")
    world = World(prompts=[{"name": "ask"}], provider=provider)
    task = ask(inputs={"messages": "$.get('messages')"})
    result = await world.run(
        workflow(task, outputs={"answer": "$.get('answer')"}), {"messages": MESSAGES}
    )
    assert asked(provider).messages == MESSAGES
    assert result.state["answer"] == "fine"


async def test_the_prompt_is_found_by_its_own_name_before_the_tasks() -> None:
    provider = AnsweringProvider("fine")
    prompts = [{"name": "ask", "text": "Wrong."}, {"name": "other", "text": "Right."}]
    await World(prompts=prompts, provider=provider).run(workflow(ask(prompt={"name": "other"})))
    assert asked(provider).messages == [{"role": "user", "content": "Right."}]


async def test_the_prompts_name_may_be_computed() -> None:
    provider = AnsweringProvider("fine")
    prompts = [{"name": "warm", "text": "Warm."}, {"name": "it's", "text": "Quoted."}]
    world = World(prompts=prompts, provider=provider)
    await world.run(workflow(ask(prompt={"name": "$.get('tone')"})), {"tone": "warm"})
    await world.run(workflow(ask(prompt='"it\'s"')))
    assert [r.messages[0]["content"] for r in provider.requests] == ["Warm.", "Quoted."]


async def test_the_instruction_is_ignored_when_the_prompt_is_not_defined() -> None:
    provider = AnsweringProvider("fine")
    await World(provider=provider).run(workflow(ask(inputs={"q": "'?'"}, prompt={"name": "no"})))
    assert asked(provider).messages == [{"role": "user", "content": "q:\n?"}]


@pytest.mark.parametrize("default", ["machina-ai", {"name": "machina-ai", "model": "small"}])
async def test_a_task_without_a_connector_uses_the_prompts(default: Any) -> None:
    world = World(prompts=[{"name": "ask", "connector": default}])
    task = ask(inputs={"q": "1"})
    task["connector"] = {"name": None}
    await world.run(workflow(task))
    assert world.connectors[0]["name"] == "machina-ai"


async def test_the_connector_block_reaches_the_provider_door_with_the_prompts_defaults() -> None:
    world = World(prompts=[{"name": "ask", "connector": {"model": "small", "name": "x"}}])
    task = ask(inputs={"q": "1"})
    task["connector"]["provider"] = "$.get('vendor')"
    await world.run(workflow(task), {"vendor": "acme"})
    assert world.connectors == [
        {
            "name": "machina-ai",
            "command": "invoke_prompt",
            "stream": False,
            "model": "small",
            "provider": "acme",
        }
    ]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, (None, None, None)),
        ({"timeout": 30, "temperature": 0, "max_tokens": 9}, (30, 0, 9)),
        ({"timeout": 600}, (600, None, None)),
        ({"timeout": 30000, "temperature": "'0.5'", "max_tokens": "'9'"}, (30, 0.5, 9)),
        ({"timeout": "'soon'", "temperature": True, "max_tokens": None}, (None, None, None)),
        ({"timeout": -1, "temperature": "float('inf')", "max_tokens": 0}, (None, None, None)),
    ],
)
async def test_parameters_set_how_the_model_answers(inputs: Any, expected: Any) -> None:
    provider = AnsweringProvider("fine")
    task = ask(inputs={"q": "'?'", **inputs})
    task["connector"]["model"] = "gemini-2.5-flash"
    await World(provider=provider).run(workflow(task))
    request = asked(provider)
    assert (request.timeout_seconds, request.temperature, request.max_tokens) == expected
    assert request.model == "gemini-2.5-flash"
    assert request.messages == [{"role": "user", "content": "q:\n?"}]


async def test_a_parameter_of_the_connector_block_holds_when_no_input_says_otherwise() -> None:
    provider = AnsweringProvider("fine")
    task = ask(inputs={"q": "'?'", "max_tokens": 5})
    task["connector"] |= {"temperature": 0.2, "max_tokens": 7}
    await World(provider=provider).run(workflow(task))
    assert (asked(provider).temperature, asked(provider).max_tokens) == (0.2, 5)


async def test_free_text_has_a_tolerant_get_and_is_stored_as_text() -> None:
    task = ask(
        inputs={"q": "'?'"},
        outputs={
            "bare": "$",
            "result": "$.get('result')",
            "choices": "$.get('choices')[0].get('message').get('content')",
            "other": "$.get('title', 'none')",
        },
    )
    names = ("bare", "result", "choices", "other")
    flow = workflow(task, outputs={name: f"$.get('{name}')" for name in names})
    result = await World().run(flow)
    assert [result.state[name] for name in names] == ["fine", "fine", "fine", "none"]
    assert type(result.state["bare"]) is str


async def test_an_empty_request_fails_clearly() -> None:
    result = await World(prompts=[{"name": "ask"}]).run(
        workflow(ask(inputs={"messages": "$.get('messages')"})), {"messages": []}
    )
    assert isinstance(result.error, TaskFailed)
    assert "has nothing to ask" in result.error.message


async def test_a_model_failure_is_the_tasks_failure() -> None:
    task = ask("talk", inputs={"messages": "'[[script: error=provider_rate_limited]]'"})
    result = await World(provider=ScriptedProvider(pace_seconds=0)).run(workflow(task))
    assert isinstance(result.error, ModelFailed)
    assert result.error.code == "provider_rate_limited"
    assert (result.error.workflow, result.error.task) == ("flow", "talk")
    assert result.error.retryable


# tokens


async def test_tokens_are_counted_over_all_calls_and_attempts() -> None:
    provider = AnsweringProvider("fine", usage=Usage(3, 2))
    world = World(workflow(ask(inputs={"q": "1"}), ask("b", inputs={"q": "2"})), provider=provider)
    context = world.context(
        tokens={"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    )
    assert context.tokens["total_tokens"] == 11
    await run_workflow(world.definitions["workflow", "flow"], {}, context)
    assert context.tokens == {
        "prompt_tokens": 16,
        "completion_tokens": 5,
        "total_tokens": 21,
    }


# structured answers


@pytest.mark.parametrize(
    "text", ['{"title": "A"}', ' {"title": "A"}\n', '```json\n{"title": "A"}\n```\n']
)
async def test_a_structured_answer_is_a_dictionary(text: str) -> None:
    provider = AnsweringProvider(text)
    world = World(prompts=[{"name": "ask", "schema": SCHEMA}], provider=provider)
    task = ask(inputs={"q": "1"}, outputs={"title": "$.get('title')", "all": "$"})
    flow = workflow(task, outputs={"title": "$.get('title')", "all": "$.get('all')"})
    result = await world.run(flow)
    assert (result.state["title"], result.state["all"]) == ("A", {"title": "A"})
    assert asked(provider).schema == SCHEMA


@pytest.mark.parametrize("broken", ["Sure!", "[1]", '{"title": ', '"text"', ""])
async def test_a_broken_structured_answer_is_repaired_once(broken: str) -> None:
    provider = AnsweringProvider(broken, '{"title": "A"}', usage=Usage(1, 1))
    world = World(prompts=[{"name": "ask", "schema": SCHEMA}], provider=provider)
    context = world.context()
    result = await run_workflow(
        workflow(ask(inputs={"q": "1"}), outputs={"a": "$.get('answer')"}), {}, context
    )
    assert result.state["a"] == {"title": "A"}
    first, second = provider.requests
    assert second.messages[: len(first.messages)] == first.messages
    assert second.messages[-2] == {"role": "assistant", "content": broken}
    assert second.messages[-1]["role"] == "user"
    assert context.tokens["total_tokens"] == 4


async def test_the_model_is_told_what_the_schema_misses() -> None:
    provider = AnsweringProvider('{"title": 7}', '{"title": "A"}')
    world = World(prompts=[{"name": "ask", "schema": SCHEMA}], provider=provider)
    result = await world.run(
        workflow(ask(inputs={"q": "1"}), outputs={"answer": "$.get('answer')"})
    )
    assert result.state["answer"] == {"title": "A"}
    told = provider.requests[1].messages[-1]["content"]
    assert "title: 7 is not of type 'string'" in told
    assert '"properties":{"title":{"type":"string"}}' in told


async def test_a_long_schema_is_not_repeated() -> None:
    schema = {**SCHEMA, "description": "x" * 30_000}
    provider = AnsweringProvider("no", '{"title": "A"}')
    world = World(prompts=[{"name": "ask", "schema": schema}], provider=provider)
    await world.run(workflow(ask(inputs={"q": "1"})))
    assert len(provider.requests[1].messages[-1]["content"]) < 500


async def test_a_schema_that_imitates_a_completion_is_nothing_special() -> None:
    schema = {"type": "object", "properties": {"choices": {"type": "array"}}}
    answer = '{"choices": [{"message": {"content": "Hi"}}]}'
    world = World(prompts=[{"name": "ask", "schema": schema}], provider=AnsweringProvider(answer))
    task = ask(
        inputs={"q": "1"},
        outputs={"text": "$.get('choices')[0].get('message').get('content')"},
    )
    result = await world.run(workflow(task, outputs={"text": "$.get('text')"}))
    assert result.state["text"] == "Hi"


async def test_the_task_fails_when_the_repaired_answer_is_broken_too() -> None:
    provider = AnsweringProvider("no")
    world = World(prompts=[{"name": "ask", "schema": SCHEMA}], provider=provider)
    result = await world.run(workflow(ask(inputs={"q": "1"})))
    assert isinstance(result.error, ModelFailed)
    assert result.error.code == "model_error"
    assert len(provider.requests) == 2


# structured answers over HTTP


@pytest.fixture
async def served() -> AsyncIterator[tuple[ProviderServer, OpenAICompatibleProvider]]:
    async with ProviderServer() as server:
        provider = OpenAICompatibleProvider(server.base_url, None, "ok")
        yield server, provider
        await provider.aclose()


@pytest.mark.parametrize(
    ("scenario", "calls"), [("ok", 1), ("fenced", 1), ("broken-once", 2), ("no-schema", 2)]
)
async def test_a_server_answers_by_the_schema_sooner_or_later(
    served: tuple[ProviderServer, OpenAICompatibleProvider], scenario: str, calls: int
) -> None:
    server, provider = served
    schema = {
        "title": "Match report (short)",
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 9},
            "tags": {"type": "array", "minItems": 1, "items": {"enum": ["a", "b"]}},
            "note": {"type": ["string", "null"]},
        },
        "required": ["title", "tags"],
    }
    world = World(prompts=[{"name": "ask", "schema": schema}], provider=provider)
    task = ask(inputs={"q": "1"})
    task["connector"]["model"] = scenario
    result = await world.run(workflow(task, outputs={"answer": "$.get('answer')"}))
    assert result.state["answer"] == {"title": "title", "tags": ["a"], "note": "note"}
    assert len(server.requests) == calls
    sent = server.requests[0].body["response_format"]["json_schema"]
    assert sent["name"] == "Match_report_short"
    assert "minItems" not in sent["schema"]["properties"]["tags"]


async def test_a_rejection_for_another_reason_is_final(
    served: tuple[ProviderServer, OpenAICompatibleProvider],
) -> None:
    server, provider = served
    world = World(prompts=[{"name": "ask", "schema": SCHEMA}], provider=provider)
    task = ask(inputs={"q": "1"})
    task["connector"]["model"] = "status-400"
    result = await world.run(workflow(task))
    assert result.error is not None
    assert result.error.code == "provider_rejected"
    assert len(server.requests) == 1


async def test_extra_keys_of_messages_are_sent_until_the_server_refuses_them(
    served: tuple[ProviderServer, OpenAICompatibleProvider],
) -> None:
    server, provider = served
    world = World(provider=provider)
    for scenario in ("ok", "strict-messages", "ok"):
        task = ask(inputs={"messages": "$.get('messages')"})
        task["connector"]["model"] = scenario
        result = await world.run(workflow(task), {"messages": MESSAGES})
        assert result.error is None
    plain = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    sent = [request.body["messages"] for request in server.requests]
    assert sent == [MESSAGES, MESSAGES, plain, plain]


# streaming


async def test_deltas_are_said_as_they_come_when_task_and_run_stream() -> None:
    provider = AnsweringProvider(["Hel", "", "lo"])
    world = World(provider=provider)
    context = world.context(streamed=True)
    result = await run_workflow(workflow(ask(inputs={"q": "1"}, stream=True)), {}, context)
    assert world.events == [
        Event("content", "Hel", {"partial": True}),
        Event("content", "lo", {"partial": True}),
    ]
    assert context.text == result.content == "Hello"


@pytest.mark.parametrize(
    ("streamed", "stream", "schema"),
    [(False, True, None), (True, False, None), (True, "no", None), (True, True, SCHEMA)],
)
async def test_nothing_is_shown_unless_task_and_run_stream_text(
    streamed: bool, stream: Any, schema: Any
) -> None:
    world = World(
        prompts=[{"name": "ask", "schema": schema}], provider=AnsweringProvider('{"a": 1}')
    )
    await world.run(workflow(ask(inputs={"q": "1"}, stream=stream)), streamed=streamed)
    assert world.events == []


@pytest.mark.parametrize("stream", ["true", "$.get('live')"])
async def test_streaming_may_be_a_word_or_computed(stream: Any) -> None:
    world = World()
    await world.run(workflow(ask(inputs={"q": "1"}, stream=stream)), {"live": True}, streamed=True)
    assert world.events == [Event("content", "fine", {"partial": True})]


async def test_a_run_that_is_not_streamed_has_the_same_answer() -> None:
    flow = workflow(ask(inputs={"q": "1"}, stream=True))
    contents = [
        (await World(flow).run(agent(step()), streamed=streamed)).content
        for streamed in (True, False)
    ]
    assert contents == ["fine", "fine"]


async def test_a_long_delta_is_shown_in_pieces() -> None:
    world = World(provider=AnsweringProvider("x" * (MAX_PIECE + 1)))
    await world.run(workflow(ask(inputs={"q": "1"}, stream=True)), streamed=True)
    assert [len(event.content) for event in world.events] == [MAX_PIECE, 1]


async def test_an_endless_answer_fails_the_task() -> None:
    world = World(provider=AnsweringProvider(["x" * 100_000] * 20))
    result = await world.run(workflow(ask(inputs={"q": "1"}, stream=True)), streamed=True)
    assert isinstance(result.error, ModelFailed)
    assert len(result.content) <= MAX_SAID_BYTES
    quiet = await world.run(workflow(ask(inputs={"q": "1"})), streamed=True)
    assert isinstance(quiet.error, ModelFailed)
