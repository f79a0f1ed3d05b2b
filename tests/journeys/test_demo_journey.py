"""A newcomer installs the demo template into a running `dev` and talks to it, without a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fleet import assert_sound, shown_text, types_of
from tests.journeys.harness import Dev, Event, running_dev, stream, wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60)]

TEMPLATE = Path(__file__).parents[2] / "templates" / "demo-chat"
FIRST = "How does a client resume a stream?"
SECOND = "And when a worker is killed? [[script: delay_ms=3]]"
STEPS = ("listen", "reason", "retrieve", "answer", "remember")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A `dev` with the template, once its setup made the passages searchable."""
    with running_dev(tmp_path_factory.mktemp("demo")) as dev:
        installing = dev.run("templates", "install", str(TEMPLATE), "--data-dir", str(dev.data_dir))
        assert installing.wait() == 0
        assert "14 saved, 0 updated, 0 failed." in installing.stdout
        with dev.client() as client:
            wait_until(lambda: _is_set_up(client), "the setup agent has run")
        yield dev


@pytest.fixture(scope="module")
def turns(demo: Dev) -> list[list[Event]]:
    """Two turns of one conversation: over SSE with the workflows shown, then over NDJSON."""
    with demo.client() as client:
        first = _over_sse(client, {"stream_workflows": True, **_saying(FIRST)})
        told = {"thread_id": first[0]["metadata"]["thread_id"], **_saying(SECOND)}
        _, second = stream(client, "/agent/stream/demo-chat", {"context-agent": told})
    return [first, second]


def test_the_setup_agent_ran_by_itself_and_once(demo: Dev) -> None:
    with demo.client() as client:
        schedule = client.get("/schedules/demo-chat-setup").json()["data"]
        found = _documents(client, "demo-chat-passage")
    assert (schedule["state"], schedule["fired"]) == ("done", 1)
    assert len(found) == 10
    assert all(passage["value"]["title"] and passage["value"]["text"] for passage in found)


def test_the_first_turn_tells_its_events_in_the_order_that_clients_expect(
    turns: list[list[Event]],
) -> None:
    events = turns[0]
    assert_sound(events)
    # The end of each step comes before what the step has to say.
    retrieved = ("workflow_start", "workflow_complete", "status_update", "workflow_objects")
    assert types_of(events) == [
        "start",
        *("workflow_start", "workflow_complete", "status_update") * 2,
        *retrieved,
        *("workflow_start", "content", "workflow_complete"),
        *("workflow_start", "workflow_complete"),
        *("content", "done"),
    ]
    walked = [e["metadata"]["workflow_name"] for e in events if e["type"] == "workflow_start"]
    assert walked == [f"demo-chat-{step}" for step in STEPS]
    assert all(e["metadata"]["success"] for e in events if e["type"] == "workflow_complete")
    _assert_well_told(events, FIRST)


def test_the_first_turn_finds_the_passage_that_answers(turns: list[list[Event]]) -> None:
    shown = [event for event in turns[0] if event["type"] == "workflow_objects"][-1]
    objects = turns[0][-1]["metadata"]["objects"]
    assert shown["metadata"]["objects"] == objects
    assert objects[0]["title"] == "Streams"
    assert "resumes" in objects[0]["text"]
    assert [o["score"] for o in objects] == sorted((o["score"] for o in objects), reverse=True)


def test_the_second_turn_goes_on_with_the_thread(turns: list[list[Event]]) -> None:
    events = turns[1]
    assert_sound(events)
    assert types_of(events) == ["start", "status_update", "content", "done"]
    statuses = [e["metadata"]["status_message"] for e in events if e["type"] == "status_update"]
    assert statuses[:2] == ["Reading your question …", "Searching the documents …"]
    assert statuses[2].startswith("Found ")
    assert "another one takes the run over" in events[-1]["metadata"]["objects"][0]["text"]
    assert events[0]["metadata"]["thread_id"] == turns[0][0]["metadata"]["thread_id"]
    _assert_well_told(events, "And when a worker is killed?")


def test_the_thread_holds_both_turns(demo: Dev, turns: list[list[Event]]) -> None:
    with demo.client() as client:
        thread = client.get(f"/document/{turns[0][0]['metadata']['thread_id']}").json()["data"]
        threads = [t for t in _documents(client, "thread") if t["value"]["title"] == FIRST]
    assert [row["_id"] for row in threads] == [thread["_id"]]
    value = thread["value"]
    assert (thread["name"], value["status"], value["title"]) == ("thread", "idle", FIRST)
    ends = [events[-1]["metadata"] for events in turns]
    assert [(m["role"], m["content"]) for m in value["messages"]] == [
        ("user", FIRST),
        ("assistant", ends[0]["content"]),
        ("user", SECOND),
        ("assistant", ends[1]["content"]),
    ]
    for message, end in zip(value["messages"][1::2], ends, strict=True):
        assert message["objects"] == end["objects"]
        assert message["suggestions"] == end["suggestions"]


def test_a_caller_without_a_question_is_greeted_and_begins_no_thread(
    demo: Dev,
) -> None:
    with demo.client() as client:
        before = len(_documents(client, "thread"))
        _, events = stream(client, "/agent/stream/demo-chat", {"messages": []})
        assert len(_documents(client, "thread")) == before
    assert types_of(events) == ["start", "content", "done"]
    assert shown_text(events) == "Hello! Ask me something about this server."


def test_an_unknown_thread_begins_a_conversation_of_its_own(demo: Dev) -> None:
    body = {"thread_id": "0" * 24, **_saying("Who are you? [[script: delay_ms=1]]")}
    with demo.client() as client:
        _, events = stream(client, "/agent/stream/demo-chat", body)
        thread_id = events[-1]["metadata"]["thread_id"]
        thread = client.get(f"/document/{thread_id}").json()["data"]
    assert thread_id != "0" * 24
    assert [m["role"] for m in thread["value"]["messages"]] == ["user", "assistant"]


def test_a_failing_model_ends_the_turn_as_failed_and_leaves_the_question(demo: Dev) -> None:
    question = "Still there? [[script: error=provider_rejected]]"
    with demo.client() as client:
        _, events = stream(client, "/agent/stream/demo-chat", _saying(question))
        thread = client.get(f"/document/{events[0]['metadata']['thread_id']}").json()["data"]
    assert events[-2]["metadata"]["code"] == "provider_rejected"
    assert events[-1]["metadata"]["status"] == "failed"
    assert [m["content"] for m in thread["value"]["messages"]] == [question]
    assert thread["value"]["status"] == "reasoning"


def test_installing_it_again_changes_nothing_but_dates(demo: Dev, turns: list[list[Event]]) -> None:
    again = demo.run("templates", "install", str(TEMPLATE), "--data-dir", str(demo.data_dir))
    assert again.wait() == 0
    assert "0 saved, 14 updated, 0 failed." in again.stdout
    with demo.client() as client:
        assert len(_documents(client, "demo-chat-page")) == 4
        answer = client.post("/workflow/execute/demo-chat-setup", json={}).json()
        assert answer["data"]["status"] == "executed", answer
        assert len(_documents(client, "demo-chat-passage")) == 10


def _assert_well_told(events: list[Event], question: str) -> None:
    """What http-api 3.5 says of any stream: pieces, the whole text, and the same text in `done`."""
    final, done = events[-2], events[-1]
    pieces = [e["content"] for e in events if e["metadata"].get("partial")]
    assert len(pieces) > 20
    assert final["metadata"]["final"] is True
    assert question in final["content"]
    assert "".join(pieces) == final["content"] == done["metadata"]["content"]
    start, end = events[0]["metadata"], done["metadata"]
    assert end["status"] == "executed"
    assert end["thread_id"] == end["document_id"] == start["thread_id"]
    assert end["task_id"] == start["task_id"]
    assert end["state"]["response_text"] == final["content"]
    assert len(end["suggestions"]) == 2
    assert events[0]["content"] == done["content"] == ""


def _saying(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _over_sse(client: httpx.Client, body: dict[str, Any]) -> list[Event]:
    events: list[Event] = []
    headers = {"Accept": "text/event-stream"}
    with client.stream("POST", "/agent/stream/demo-chat", json=body, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data:"):
                events.append(json.loads(line.removeprefix("data:")))
    return events


def _documents(client: httpx.Client, name: str) -> list[dict[str, Any]]:
    body = {"filters": {"name": name}, "page_size": 100}
    rows: list[dict[str, Any]] = client.post("/document/search", json=body).json()["data"]
    return rows


def _is_set_up(client: httpx.Client) -> bool:
    runs = client.get("/schedules/demo-chat-setup")
    if runs.status_code != httpx.codes.OK or not runs.json()["data"]["last_run_id"]:
        return False
    run = client.get(f"/execution/agent-run/{runs.json()['data']['last_run_id']}").json()
    return bool(run["data"]["status"] == "agent-executed")
