from __future__ import annotations

from typing import Any

import pytest

from machina.engine.context import MAX_SAID_BYTES
from machina.errors import DefinitionMissing, TaskTypeUnknown
from machina.events import Event
from tests.builders import AnsweringProvider, World, agent, ask, compute, failing, step, workflow

ECHO = workflow(name="echo", title="Echo", outputs={"said": "$.get('text')", "all": "$"})
BROKEN = workflow(failing("bad"), name="broken", outputs={"half": "1"})
BLOWN = "'x' * 1000000000"


async def final(actor: dict[str, Any], payload: dict[str, Any] | None = None) -> dict[str, Any]:
    return (await World(ECHO, BROKEN).run(actor, payload)).state


# state


async def test_the_state_is_context_under_payload_under_context_agent() -> None:
    actor = agent(
        context={"a": "$.get('b')", "b": "context", "c": "context"},
        context_agent={"c": "$.get('b', 'absent')", "d": "$.get('a', 'absent')"},
    )
    assert await final(actor, {"b": "payload"}) == {
        "a": "$.get('b')",
        "b": "payload",
        "c": "payload",
        "d": "absent",
    }


async def test_listed_context_variables_are_parameters_with_defaults() -> None:
    parameters = [
        {"name": "team", "default": "'home' + $.get('x')"},
        {"name": "year", "default": "2026"},
        {"name": "free"},
    ]
    actor = agent(context_variables=parameters)
    assert await final(actor, {"x": "!", "year": 1}) == {"x": "!", "team": "home!", "year": 1}


async def test_a_workflow_sees_its_step_inputs_only_and_they_are_not_written_back() -> None:
    actor = agent(
        step("echo", inputs={"text": "$.get('x')"}, outputs={"first": "$.get('all')"}),
        step("echo", outputs={"second": "$.get('all')"}),
    )
    state = await final(actor, {"x": 1})
    assert state == {"x": 1, "first": {"text": 1}, "second": {}}


async def test_step_outputs_fall_back_to_the_agents_state() -> None:
    actor = agent(
        step(
            "echo",
            inputs={"text": "'hi'"},
            outputs={
                "own": "$.get('said')",
                "state": "$.get('x')",
                "context": "$.context.get('x')",
                "nowhere": "$.get('y', 'none')",
                "earlier": "$.get('own')",
                "constant": [],
            },
        )
    )
    assert await final(actor, {"x": 1, "said": "stale"}) == {
        "x": 1,
        "said": "stale",
        "own": "hi",
        "state": 1,
        "context": 1,
        "nowhere": "none",
        "earlier": "hi",
        "constant": [],
    }


async def test_an_expression_of_a_step_that_raises_becomes_null() -> None:
    actor = agent(
        step("echo", inputs={"text": "len(None)"}, outputs={"a": "$.get('all')", "b": "1/0"})
    )
    assert await final(actor) == {"a": {"text": None}, "b": None}


# conditions


@pytest.mark.parametrize("word", ["condition", "gate"])
async def test_a_step_is_skipped_when_its_condition_is_false(word: str) -> None:
    world = World(ECHO)
    actor = agent(step("echo", outputs={"x": "1"}, **{word: "$.get('go') == 1"}))
    result = await world.run(actor, {"go": 2})
    assert (result.status, result.state) == ("executed", {"go": 2})
    assert world.statuses == [("echo", "skipped")]
    assert world.checkpoints == []


async def test_condition_and_gate_must_both_hold() -> None:
    actor = agent(step("echo", condition="True", gate="False", outputs={"x": "1"}))
    assert await final(actor) == {}


async def test_a_step_of_another_type_is_skipped() -> None:
    world = World(ECHO)
    actor = agent(step("filter", type="mapping", config={}), step("echo", outputs={"x": "1"}))
    result = await world.run(actor)
    assert (result.status, result.state) == ("executed", {"x": 1})
    assert world.statuses == [("filter", "skipped"), ("echo", "executed")]


# failure


async def test_a_failed_step_is_recorded_and_the_next_steps_run() -> None:
    world = World(ECHO, BROKEN)
    actor = agent(
        step(
            "broken",
            outputs={
                "status": "$.get('workflow-status')",
                "half": "$.get('half')",
                "why": "$.get('workflow-error').get('task')",
            },
        ),
        step("echo", condition="$.get('status') == 'failed'", outputs={"rescued": "True"}),
    )
    result = await world.run(actor)
    assert result.status == "executed"
    assert result.error is None
    assert result.state == {"status": "failed", "half": 1, "why": "bad", "rescued": True}
    assert world.statuses == [("broken", "failed"), ("echo", "executed")]


async def test_the_run_fails_when_its_last_executed_step_failed() -> None:
    actor = agent(step("echo"), step("broken"), step("echo", condition="False"))
    result = await World(ECHO, BROKEN).run(actor)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.workflow, result.error.task) == ("broken", "bad")


async def test_a_missing_workflow_is_the_steps_failure() -> None:
    world = World()
    actor = agent(step("ghost", outputs={"code": "$.get('workflow-error').get('code')"}))
    result = await world.run(actor)
    assert isinstance(result.error, DefinitionMissing)
    assert result.error.workflow == "ghost"
    assert result.state == {"code": "definition_missing"}
    assert world.statuses == [("ghost", "failed")]


async def test_the_run_fails_when_nothing_ran_because_a_condition_raised() -> None:
    actor = agent(step("echo", condition="len($.get('x')) > 0"), step("echo", condition="False"))
    result = await World(ECHO).run(actor)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.code, result.error.workflow) == ("expression_error", "echo")


async def test_a_condition_that_raises_is_no_failure_when_something_ran() -> None:
    raising = step("echo", condition="len($.get('x')) > 0")
    for actor in (agent(raising, step("echo")), agent(step("echo"), raising)):
        assert (await World(ECHO).run(actor)).status == "executed"


async def test_the_run_is_executed_when_all_steps_were_skipped() -> None:
    assert (await World(ECHO).run(agent(step("echo", condition="False")))).status == "executed"


@pytest.mark.parametrize("word", ["condition", "inputs", "outputs"])
async def test_a_blown_budget_fails_the_step_wherever_it_stands(word: str) -> None:
    blown: Any = BLOWN if word == "condition" else {"x": BLOWN}
    result = await World(ECHO).run(agent(step("echo", **{word: blown})))
    assert result.error is not None
    assert (result.error.code, result.error.workflow) == ("sandbox_limit", "echo")


async def test_a_blown_budget_in_context_agent_fails_the_run() -> None:
    world = World(ECHO)
    result = await world.run(agent(step("echo"), context_agent={"x": BLOWN}))
    assert result.error is not None
    assert result.error.code == "sandbox_limit"
    assert world.steps == []


async def test_a_broken_step_fails_alone() -> None:
    world = World(ECHO)
    result = await world.run(agent(step("echo", inputs="oops"), step("echo")))
    assert result.status == "executed"
    assert world.statuses == [("echo", "failed"), ("echo", "executed")]


async def test_a_broken_agent_fails_with_a_result() -> None:
    result = await World().run({"name": "a", "workflows": "all"})
    assert result.error is not None
    assert result.error.code == "definition_invalid"


# other forms of agents


async def test_an_agent_that_is_just_a_workflow_runs_it_on_the_payload() -> None:
    world = World(workflow(name="main", outputs={"response_text": "'Hi ' + $.get('who')"}))
    actor = {"name": "a", "type": "workflow", "entry-point": "main"}
    result = await world.run(actor | {"workflows": None}, {"who": "Ada", "message": "Hello"})
    assert (result.status, result.content) == ("executed", "Hi Ada")
    assert result.state["workflow-status"] == "executed"
    assert world.statuses == [("main", "executed")]


async def test_an_agent_with_tasks_of_its_own_is_reported() -> None:
    result = await World().run({"name": "a", "workflows": [], "tasks": [{"type": "map"}]})
    assert isinstance(result.error, TaskTypeUnknown)
    assert "'a'" in result.error.message


async def test_an_agent_without_steps_is_executed() -> None:
    assert (await World().run(agent(), {"x": 1})).state == {"x": 1}


async def test_the_credentials_of_the_agent_reach_its_workflows() -> None:
    task = ask(inputs={"k": "$.get('api_key')", "r": "$.get('region')"}, outputs={})
    own = {"machina-ai": {"region": "eu"}}
    flow = workflow(task, outputs={"got": "[$.get('k'), $.get('r')]"}, context_variables=own)
    groups = {"machina-ai": {"api_key": "$MACHINA_CONTEXT_VARIABLE_K", "region": "us"}}
    actor = agent(step(outputs={"got": "$.get('got')"}), context_variables=groups)
    secrets = {"MACHINA_CONTEXT_VARIABLE_K": "short"}  # short enough not to be masked
    result = await World(flow).run(actor, secrets=secrets.get)
    assert result.state["got"] == ["short", "eu"]


# the result


@pytest.mark.parametrize(
    ("outputs", "content"),
    [
        ({"response_text": "'a'", "content": "'b'", "message": "'c'"}, "a"),
        ({"response_text": "''", "content": "'b'", "message": "'c'"}, "b"),
        ({"response_text": "None", "message": "'c'"}, "c"),
        ({"response_text": "7", "content": "{'text': 'x'}"}, "streamed"),
        ({}, "streamed"),
    ],
)
async def test_the_content_is_the_first_text_of_the_answer_keys_else_what_was_said(
    outputs: Any, content: str
) -> None:
    flow = workflow(ask(inputs={"q": "1"}, stream=True))
    world = World(flow, provider=AnsweringProvider("streamed"))
    result = await world.run(agent(step(outputs=outputs)), {"message": "the caller's"})
    assert result.content == content


async def test_what_the_caller_sent_is_not_the_answer() -> None:
    payload = {"message": "Hi", "objects": [1], "suggestions": [2], "thread_id": "t", "x": 1}
    result = await World(ECHO).run(agent(step("echo", outputs={"y": "1"})), payload)
    assert (result.content, result.objects, result.suggestions) == ("", [], [])
    assert result.thread_id == "t"


async def test_the_result_has_what_clients_expect() -> None:
    outputs = {
        "objects": "[{'id': 1}]",
        "suggestions": "['More']",
        "thread_id": "'65f000000000000000000002'",
        "document_id": "'65f000000000000000000003'",
    }
    result = await World(ECHO).run(agent(step("echo", outputs=outputs)), {"thread_id": ""})
    assert (result.objects, result.suggestions) == ([{"id": 1}], ["More"])
    assert (result.thread_id, result.document_id) == (
        "65f000000000000000000002",
        "65f000000000000000000003",
    )


async def test_ids_that_are_empty_are_none() -> None:
    result = await World(ECHO).run(
        agent(step("echo", outputs={"document_id": "7"})), {"thread_id": ""}
    )
    assert (result.thread_id, result.document_id) == (None, None)


# what is said


def kinds(world: World) -> list[str]:
    return [event.type for event in world.events]


async def test_events_of_workflows_are_said_when_the_client_asked_for_them() -> None:
    world = World(ECHO, BROKEN)
    actor = agent(
        step(
            "echo",
            outputs={"stream_status_message": "'Looking …'", "objects": "[1]"},
        ),
        step("echo", condition="False"),
        step("broken"),
    )
    await world.run(actor, streamed=True, stream_workflows=True)
    place = {"total_workflows": 3}
    first = {"workflow_name": "echo", "workflow_index": 1, **place}
    last = {"workflow_name": "broken", "workflow_index": 3, **place}
    assert world.events == [
        Event("workflow_start", "Step 1 of 3: Echo", {**first, "progress_percent": 0}),
        Event(
            "workflow_complete",
            "Finished: Echo",
            {**first, "progress_percent": 33, "success": True},
        ),
        Event(
            "status_update",
            "Looking …",
            {"status_message": "Looking …", "workflow_name": "echo"},
        ),
        Event("workflow_objects", "", {"objects": [1], "workflow_name": "echo"}),
        Event(
            "workflow_skipped",
            "Skipped: echo",
            {"workflow_name": "echo", "workflow_index": 2, **place, "progress_percent": 66},
        ),
        Event("workflow_start", "Step 3 of 3: broken", {**last, "progress_percent": 66}),
        Event(
            "workflow_error",
            "Failed: broken",
            {
                **last,
                "progress_percent": 100,
                "success": False,
                "code": "task_type_unknown",
                "message": world.events[-1].metadata["message"],
                "task_name": "bad",
            },
        ),
    ]


async def test_only_status_and_content_are_said_without_workflow_events() -> None:
    flow = workflow(ask(inputs={"q": "1"}, stream=True))
    world = World(flow, provider=AnsweringProvider("Hi"))
    actor = agent(step(outputs={"stream_status_message": "'…'", "objects": "[1]"}))
    await world.run(actor, streamed=True)
    assert world.said == [("content", "Hi"), ("status_update", "…")]


async def test_nothing_is_said_when_the_run_is_not_streamed() -> None:
    world = World(ECHO)
    actor = agent(step("echo", outputs={"stream_status_message": "'…'", "objects": "[1]"}))
    await world.run(actor, stream_workflows=True)
    assert world.events == []


async def test_a_status_message_of_the_workflow_is_said_when_the_step_has_none() -> None:
    world = World(workflow(outputs={"stream_status_message": "'from below'"}))
    await world.run(agent(step()), streamed=True)
    assert world.said == [("status_update", "from below")]


@pytest.mark.parametrize("message", ["None", "''", "7"])
async def test_a_status_message_that_is_no_text_is_not_said(message: str) -> None:
    world = World(ECHO)
    await world.run(agent(step("echo", outputs={"stream_status_message": message})), streamed=True)
    assert world.events == []


async def test_empty_objects_are_said_only_when_they_replace_others() -> None:
    world = World(ECHO)
    actor = agent(*(step("echo", outputs={"objects": o}) for o in ("[]", "[1]", "[]", "None")))
    await world.run(actor, streamed=True, stream_workflows=True)
    objects = [e.metadata["objects"] for e in world.events if e.type == "workflow_objects"]
    assert objects == [[1], []]


async def test_objects_that_fit_into_no_event_are_in_the_result_only() -> None:
    world = World(ECHO)
    actor = agent(step("echo", outputs={"objects": "$.get('big')"}))
    result = await world.run(
        actor, {"big": ["x" * (MAX_SAID_BYTES + 1)]}, streamed=True, stream_workflows=True
    )
    assert "workflow_objects" not in kinds(world)
    assert len(result.objects) == 1


async def test_every_step_is_recorded_with_its_time() -> None:
    ticks = iter(range(1000))
    world = World(ECHO, now=lambda: next(ticks) / 1000)
    await world.run(agent(step("echo"), step("echo", condition="False")))
    assert world.statuses == [("echo", "executed"), ("echo", "skipped")]
    assert all(record["execution_time"] > 0 for record in world.steps)


async def test_a_workflow_run_is_recorded_as_one_step() -> None:
    world = World()
    await world.run(workflow(compute(), name="alone"))
    assert world.statuses == [("alone", "executed")]
