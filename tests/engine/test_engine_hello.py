"""The sample agent `hello`: what a client sees of it, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from machina.cli.sample import load_sample
from machina.connectors.llm.scripted import ScriptedProvider
from machina.definitions import Kind, check_name
from machina.engine import RunResult
from machina.events import Event
from tests.builders import AnsweringProvider, World

ASKED: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Look"}], "timestamp": "1"},
    {"role": "assistant", "content": "I see."},
    {"role": "user", "content": "And now?"},
]


class Hello(World):
    """A world in which the sample is installed."""

    async def ask(self, payload: dict[str, Any], **more: Any) -> RunResult:
        """Runs the agent."""
        return await self.run(self.definitions["agent", "hello"], payload, **more)


@pytest.fixture
def world() -> Hello:
    hello = Hello(provider=AnsweringProvider(["It is ", "noon."]))
    hello.definitions = {(kind, d["name"]): d for kind, d in load_sample()}
    return hello


def test_the_sample_is_made_of_definitions_with_names() -> None:
    sample = load_sample()
    assert [(kind, check_name(d["name"])) for kind, d in sample] == [
        ("prompt", "hello-answer"),
        ("workflow", "hello-listen"),
        ("workflow", "hello-answer"),
        ("agent", "hello"),
    ]
    assert {kind for kind, _ in sample} <= {*Kind}


async def test_a_client_that_asks_for_workflows_sees_every_step(world: Hello) -> None:
    await world.ask({"messages": ASKED}, streamed=True, stream_workflows=True)

    def place(name: str, index: int, percent: int, **more: Any) -> dict[str, Any]:
        return {
            "workflow_name": name,
            "workflow_index": index,
            "total_workflows": 2,
            "progress_percent": percent,
            **more,
        }

    status = "Thinking about your message …"
    assert world.events == [
        Event("workflow_start", "Step 1 of 2: Listening", place("hello-listen", 1, 0)),
        Event(
            "workflow_complete", "Finished: Listening", place("hello-listen", 1, 50, success=True)
        ),
        Event("status_update", status, {"status_message": status, "workflow_name": "hello-listen"}),
        Event("workflow_start", "Step 2 of 2: Answering", place("hello-answer", 2, 50)),
        Event("content", "It is ", {"partial": True}),
        Event("content", "noon.", {"partial": True}),
        Event(
            "workflow_complete", "Finished: Answering", place("hello-answer", 2, 100, success=True)
        ),
    ]


async def test_a_client_that_does_not_ask_for_workflows_sees_status_and_content(
    world: Hello,
) -> None:
    await world.ask({"messages": ASKED}, streamed=True)
    assert world.said == [
        ("status_update", "Thinking about your message …"),
        ("content", "It is "),
        ("content", "noon."),
    ]


async def test_the_model_gets_the_callers_messages_unchanged_and_nothing_else(world: Hello) -> None:
    provider = AnsweringProvider("fine")
    world.llm = provider
    await world.ask({"messages": ASKED, "status_message": "x", "extra": 1})
    (request,) = provider.requests
    assert list(request.messages) == ASKED
    assert request.schema is None


async def test_the_result_is_what_clients_expect(world: Hello) -> None:
    result = await world.ask({"messages": ASKED, "thread_id": "t-1"})
    assert (result.status, result.content, result.thread_id) == ("executed", "It is noon.", "t-1")
    assert result.suggestions == ["Tell me more", "Say it in one sentence"]
    assert result.state["question"] == "And now?"
    assert world.statuses == [("hello-listen", "executed"), ("hello-answer", "executed")]


@pytest.mark.parametrize("payload", [{}, {"messages": []}, {"messages": None, "thread_id": None}])
async def test_a_caller_without_messages_is_greeted(world: Hello, payload: dict[str, Any]) -> None:
    provider = AnsweringProvider("unasked")
    world.llm = provider
    result = await world.ask(payload, streamed=True)
    assert result.status == "executed"
    assert result.content.startswith("Hello!")
    assert result.thread_id is None
    assert provider.requests == []
    assert world.statuses == [("hello-listen", "executed"), ("hello-answer", "skipped")]


@pytest.mark.parametrize("messages", ["Hi", ["Hi"], {"role": "user", "content": "Hi"}, [{}]])
async def test_messages_of_another_form_are_answered_too(world: Hello, messages: Any) -> None:
    result = await world.ask({"messages": messages})
    assert (result.status, result.content) == ("executed", "It is noon.")


async def test_a_model_that_fails_midway_leaves_its_text_and_a_clear_error(world: Hello) -> None:
    world.llm = ScriptedProvider(pace_seconds=0)
    script = '[[script: text="One two" fail_after=1 error=provider_unavailable]]'
    result = await world.ask({"messages": [{"role": "user", "content": script}]})
    assert (result.status, result.content) == ("failed", "One")
    assert result.error is not None
    assert result.error.code == "provider_unavailable"
    assert (result.error.workflow, result.error.task) == ("hello-answer", "hello-answer")
