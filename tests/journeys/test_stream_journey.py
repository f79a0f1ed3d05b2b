"""A client watches, drops at any point, and comes back on any instance; real processes."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fleet import assert_sound, shown_text, types_of
from tests.journeys.harness import Dev, Event, read_events, replay, stream

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60)]


def script(text: str) -> dict[str, Any]:
    """A body whose message tells the scripted model what to do."""
    return {"messages": [{"role": "user", "content": f"[[script: {text}]]"}]}


@pytest.fixture(scope="module")
def second_api(shared_dev: Dev) -> int:
    """The port of another API process on the same data."""
    return shared_dev.start_api()


@pytest.fixture
def clients(shared_dev: Dev, second_api: int) -> Iterator[list[httpx.Client]]:
    """A client of each of the two API processes."""
    with shared_dev.client() as first, shared_dev.client(port=second_api) as second:
        yield [first, second]


def test_a_live_stream_cut_at_every_event_misses_nothing(clients: list[httpx.Client]) -> None:
    seen: list[Event] = []
    with clients[0].stream(
        "POST", "/agent/stream/hello", json=script("tokens=12 delay_ms=30")
    ) as r:
        run_id = r.headers["x-run-id"]
        path = r.headers["content-location"]
        seen.append(next(read_events(r)))
    while seen[-1]["type"] != "done":
        client = clients[len(seen) % 2]
        with client.stream("GET", path, params={"after": seen[-1]["id"]}) as r:
            assert r.status_code == 200
            seen.append(next(read_events(r)))

    assert_sound(seen)
    assert seen == replay(clients[1], run_id)


def test_a_finished_stream_resumed_at_every_event_gives_exactly_the_rest(
    clients: list[httpx.Client],
) -> None:
    run_id, whole = stream(clients[0], body=script("tokens=12 delay_ms=1"))

    for index, event in enumerate(whole):
        assert replay(clients[index % 2], run_id, event["id"]) == whole[index + 1 :]


def test_viewers_on_two_instances_get_the_same_bytes(clients: list[httpx.Client]) -> None:
    with clients[0].stream("POST", "/agent/stream/hello", json=script("tokens=50 delay_ms=5")) as r:
        path = r.headers["content-location"]
        with ThreadPoolExecutor() as pool:
            other = pool.submit(lambda: clients[1].get(path).content)
            mine = b"".join(r.iter_raw())

    assert [line for line in mine.split(b"\n") if line] == [
        line for line in other.result().split(b"\n") if line
    ]


def test_server_sent_events_carry_the_same_events_and_resume_by_header(
    clients: list[httpx.Client],
) -> None:
    run_id, whole = stream(clients[0], body=script("tokens=5 delay_ms=1"))
    path = f"/execution/agent-run/{run_id}/stream"
    accept = {"Accept": "text/event-stream"}

    answer = clients[1].get(path, headers=accept | {"Last-Event-ID": whole[2]["id"]})
    at_the_end = clients[1].get(path, headers=accept | {"Last-Event-ID": whole[-1]["id"]})

    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [frame for frame in answer.text.split("\n\n") if frame and not frame.startswith(":")]
    fields = [dict(line.split(": ", 1) for line in frame.split("\n")) for frame in frames]
    assert [json.loads(f["data"]) for f in fields] == whole[3:]
    assert [(f["id"], f["event"]) for f in fields] == [(e["id"], e["type"]) for e in whole[3:]]
    assert at_the_end.status_code == 204


def test_the_stream_ends_within_a_second_after_done(clients: list[httpx.Client]) -> None:
    with clients[0].stream("POST", "/agent/stream/hello", json=script("tokens=2 delay_ms=1")) as r:
        for event in read_events(r):
            if event["type"] == "done":
                ended = time.monotonic()

    assert time.monotonic() - ended < 1


def test_a_retry_with_the_same_key_joins_the_run_wherever_the_answer_was_cut(
    shared_dev: Dev, clients: list[httpx.Client]
) -> None:
    body = script("tokens=8 delay_ms=2")
    length = len(_raw_answer(shared_dev, clients[0], body, str(uuid.uuid4()), cut=None))
    for cut in [*range(0, length, 211), length - 1]:
        key = str(uuid.uuid4())
        headers = {"Idempotency-Key": key}
        _raw_answer(shared_dev, clients[0], body, key, cut=cut)
        with clients[1].stream("POST", "/agent/stream/hello", json=body, headers=headers) as r:
            run_id = r.headers["x-run-id"]
            events = list(read_events(r))
        again = clients[0].post("/agent/stream/hello", json=body, headers=headers)

        assert_sound(events)
        assert events[0]["id"] == "1-1"
        assert again.headers["x-run-id"] == run_id


def test_a_key_with_another_body_is_refused(clients: list[httpx.Client]) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    clients[0].post("/agent/stream/hello", json=script("tokens=1 delay_ms=0"), headers=headers)

    refused = clients[1].post(
        "/agent/stream/hello", json=script("tokens=2 delay_ms=0"), headers=headers
    )

    assert refused.status_code == 409
    assert refused.json()["error"]["id"] == "idempotency_mismatch"


@pytest.mark.parametrize(
    ("after", "status", "code"),
    [
        ("rubbish", 400, "bad_resume_id"),
        ("1-", 400, "bad_resume_id"),
        ("-1-1", 400, "bad_resume_id"),
        ("1-9999999999999999999999", 400, "bad_resume_id"),
        ("$", 400, "bad_resume_id"),
        ("1-99999", 409, "resume_ahead"),
        ("7-1", 409, "resume_ahead"),
    ],
)
def test_an_impossible_resume_id_is_refused_with_its_name(
    clients: list[httpx.Client], after: str, status: int, code: str
) -> None:
    run_id, _ = stream(clients[0], body=script("tokens=1 delay_ms=0"))

    answer = clients[1].get(f"/execution/agent-run/{run_id}/stream", params={"after": after})

    assert (answer.status_code, answer.json()["error"]["id"]) == (status, code)


def test_a_foreign_run_is_unknown(shared_dev: Dev, clients: list[httpx.Client]) -> None:
    run_id, _ = stream(clients[0], body=script("tokens=1 delay_ms=0"))
    created = shared_dev.run(
        "keys", "create", "--scope", "client", "--data-dir", str(shared_dev.data_dir)
    )
    assert created.wait() == 0
    with shared_dev.client(key=created.stdout.strip()) as stranger:
        answers = [
            stranger.get(f"/execution/agent-run/{id}/stream").json()["detail"].replace(id, "")
            for id in (run_id, "0" * 24)
        ]
        assert answers[0] == answers[1]
        assert stranger.get(f"/execution/agent-run/{run_id}").status_code == 404
        assert stranger.post(f"/execution/agent-run/{run_id}/cancel").status_code == 404
        mine, events = stream(stranger, body=script("tokens=1 delay_ms=0"))
        assert stranger.get(f"/execution/agent-run/{mine}").status_code == 200
        assert types_of(events)[-1] == "done"


def test_executor_routes_answer_in_the_foreground_and_in_the_background(
    clients: list[httpx.Client],
) -> None:
    body = {"context-agent": script("tokens=3 delay_ms=1"), "agent-config": {"delay": False}}
    waited = clients[0].post("/agent/executor/hello", json=body).json()
    queued = (
        clients[0]
        .post("/agent/executor/hello", json=body | {"agent-config": {"delay": True}})
        .json()
    )

    assert waited["status"] is True
    assert waited["data"]["response"]["response_text"]
    run_id = queued["data"]["agent_run_id"]
    run = clients[1].get(f"/execution/agent-run/{run_id}").json()["data"]
    while run["status"] in ("scheduled", "running"):
        time.sleep(0.02)
        run = clients[1].get(f"/execution/agent-run/{run_id}").json()["data"]
    assert run["status"] == "agent-executed"
    assert shown_text(replay(clients[1], run_id)) == run["response"]["response_text"]
    found = (
        clients[1]
        .post("/execution/agent-search", json={"filters": {"_id": run_id}, "page_size": 1})
        .json()
    )
    assert (found["data"][0]["_id"], found["total_documents"]) == (run_id, 1)


def _raw_answer(
    dev: Dev, client: httpx.Client, body: dict[str, Any], key: str, *, cut: int | None
) -> bytes:
    """The answer's bytes, headers included; `cut`: the connection is reset after that many."""
    request = client.build_request(
        "POST", "/agent/stream/hello", json=body, headers={"Idempotency-Key": key}
    )
    head = b"".join(
        [b"POST /agent/stream/hello HTTP/1.1\r\n", b"Connection: close\r\n"]
        + [b"%s: %s\r\n" % pair for pair in request.headers.raw if pair[0].lower() != b"connection"]
    )
    received = b""
    with socket.create_connection(("127.0.0.1", dev.port), timeout=10) as connection:
        connection.sendall(head + b"\r\n" + request.content)
        while cut is None or len(received) < cut:
            piece = connection.recv(65_536 if cut is None else cut - len(received))
            if not piece:
                break
            received += piece
        if cut is not None:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, 0 s: close with a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return received
