"""start-prod.sh for real: the guide's .env, processes, verifying calls, places and stops."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from tests.deploy.page_commands import PageCommand, read_page_commands
from tests.deploy.production import Deployment, LockedRedis, Prepared, Process, deployed
from tests.fleet import assert_sound
from tests.journeys.harness import read_events, wait_until
from tests.journeys.watcher import script
from tests.mongo_server import MongoServer

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

PROCESSES: Final = 2
PLACES: Final = 10
GUIDE: Final = {
    "GUNICORN_WORKERS": str(PROCESSES),
    "MAX_CONCURRENT_STREAMS": str(PLACES),
    "STREAM_TIMEOUT_SECONDS": "300",
    "CIRCUIT_BREAKER_THRESHOLD": "5",
    "LOG_LEVEL": "info",
    "SCHEDULERS": "1  # Enable background schedulers",
    "MACHINA_CLIENT_VERSION": "2.0.0",
}
STREAMING: Final = ("worker", "--queues", "streaming_priority")
OTHERS: Final = ("worker", "--queues", "high_priority,normal_priority,low_priority")


@dataclass(frozen=True, slots=True)
class Guided:
    """A deployment as the guide starts it."""

    deployment: Deployment
    has: Prepared
    api: Process
    workers: tuple[Process, Process]

    def commands(self, kind: str) -> list[PageCommand]:
        has = self.has
        values = {"ADMIN_KEY": has.admin_key, "KEY": has.client_key, "AGENT": has.agent_id}
        return [c for c in read_page_commands(values) if c.kind == kind]

    def call(self, command: PageCommand, **changes: Any) -> httpx.Response:
        with self.deployment.client() as client:
            options = {"headers": command.headers, "content": command.data} | changes
            return client.request(command.method, command.path, **options)


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guided]:
    """API and workers as the guide starts them: Redis with a password, MongoDB, two processes."""
    home = tmp_path_factory.mktemp("guided")
    with ExitStack() as stack:
        redis = stack.enter_context(closing(LockedRedis()))
        mongo = stack.enter_context(closing(MongoServer()))
        services = {
            "REDIS_URL": redis.address(0),
            "REDIS_PUBSUB_URL": redis.address(1),
            "MONGODB_URL": mongo.url,
        }
        deployment = stack.enter_context(deployed(home, services | GUIDE))
        api = deployment.start()
        workers = (deployment.start(*STREAMING), deployment.start(*OTHERS))
        prepared = deployment.prepare()
        deployment.wait_ready(api)
        deployment.wait_said(api, "api.listening", PROCESSES)
        for worker in workers:
            deployment.wait_said(worker, "worker.started")
        yield Guided(deployment, prepared, api, workers)


def test_every_check_of_the_page_answers_as_the_page_says(guided: Guided) -> None:
    commands = guided.commands("")
    assert [command.path for command in commands] == [
        "/system/client-health-check",
        "/system/streaming-health",
        "/system/liveness",
        "/system/readiness",
    ]
    for command in commands:
        answer = guided.call(command)
        assert answer.status_code == 200
        # Compared as text: keys in the same order too.
        assert json.dumps(answer.json()) == json.dumps(command.expected), command.path


def test_the_page_streams_an_agent_with_a_clients_key(guided: Guided) -> None:
    (command,) = guided.commands("stream")
    with (
        guided.deployment.client() as client,
        client.stream(
            command.method, command.path, headers=command.headers, content=command.data
        ) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        events = list(read_events(response))
    assert_sound(events)
    types = [event["type"] for event in events]
    assert (types[0], types[-1]) == ("start", "done")
    assert {"content", "workflow_start", "workflow_complete"} <= set(types)
    assert events[-1]["metadata"]["status"] == "executed"


def test_only_an_administrator_resets_the_breaker(guided: Guided) -> None:
    (command,) = guided.commands("admin")
    answer = guided.call(command)
    assert (answer.status_code, answer.json()) == (200, command.expected)
    assert guided.call(command, headers={}).status_code == 401
    foreign = {"Authorization": f"Bearer {guided.has.client_key}"}
    assert guided.call(command, headers=foreign).status_code == 403


def test_each_process_admits_its_own_number_of_streams(guided: Guided) -> None:
    body = script("first_ms=25000 tokens=1") | {"on_disconnect": "cancel"}
    path = f"/agent/stream/{guided.has.agent_id}"
    health = guided.commands("")[1]
    with guided.deployment.client(guided.has.client_key) as client, ExitStack() as stack:

        def start() -> httpx.Response:
            return stack.enter_context(client.stream("POST", path, json=body))

        admitted, refused = 0, list[httpx.Response]()
        # A connection goes to either process by chance: after so many, both are full.
        while admitted < PROCESSES * PLACES and len(refused) < 60:
            answer = start()
            if answer.status_code == 200:
                admitted += 1
            else:
                refused.append(answer)
        assert admitted == PROCESSES * PLACES
        refused += [start() for _ in range(8)]
        assert {answer.status_code for answer in refused} == {429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)

        for _ in range(8):
            figures = guided.call(health).json()
            assert figures["web_worker_streams"] == {
                "active": PLACES,
                "max": PLACES,
                "available": 0,
            }
            assert figures["redis_streams"] == {"active_streams": PLACES, "redis_healthy": True}

    def all_places_free() -> bool:
        answers = [guided.call(health).json()["web_worker_streams"] for _ in range(8)]
        return all(places["available"] == PLACES for places in answers)

    wait_until(all_places_free, "all places are free again")


def test_a_new_key_is_printed_alone(guided: Guided) -> None:
    printed = guided.deployment.run("keys", "create", "--scope", "client", "--name", "alone")
    assert len(printed.split()) == 1, printed
    with guided.deployment.client(printed) as client:
        assert client.get(f"/execution/agent-run/{'0' * 24}").status_code == 404


def test_what_was_exported_wins_over_the_file(guided: Guided) -> None:
    shown = guided.deployment.start("api", environ={"MAX_CONCURRENT_STREAMS": "none"})
    assert shown.wait(20) == 2
    assert "MAX_CONCURRENT_STREAMS=none" in guided.deployment.output(shown)


def test_on_sigterm_everything_ends_with_0_and_nothing_is_left(guided: Guided) -> None:
    # The last of this file: it stops what the others share.
    deployment = guided.deployment
    assert len(deployment.processes()) == 1 + PROCESSES + len(guided.workers)
    for process in (guided.api, *guided.workers):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in (guided.api, *guided.workers)] == [0, 0, 0]
    wait_until(lambda: not deployment.processes(), "every process has ended")
