"""Metrics from the outside: whichever process is asked, the answer is that of all its siblings."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import httpx
import pytest

from tests.journeys.harness import Dev, free_port, stream, wait_until
from tests.measuring import series

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60)]


def ask_api(dev: Dev, port: int | None = None) -> Callable[[], dict[str, float]]:
    def ask() -> dict[str, float]:
        with dev.client(port=port) as client:  # a connection of its own: any of the processes
            answer = client.get("/metrics")
        assert answer.status_code == 200
        return series(answer.content)

    return ask


def ask_port(port: int) -> Callable[[], dict[str, float]]:
    return lambda: series(httpx.get(f"http://127.0.0.1:{port}/metrics").content)


def reaches(ask: Callable[[], dict[str, float]], **wanted: float) -> Callable[[], bool]:
    def look() -> bool:
        numbers = ask()
        return all(numbers.get(f"machina_{name}") == value for name, value in wanted.items())

    return look


def test_dev_answers_for_api_and_worker(shared_dev: Dev, shared_client: httpx.Client) -> None:
    ask = ask_api(shared_dev)
    ended = 'machina_runs_ended_total{kind="agent",outcome="executed"}'
    before = ask()
    stream(shared_client)
    wait_until(lambda: ask()[ended] == before[ended] + 1, "the worker's count is seen")
    numbers = ask()
    assert numbers['machina_processes{process="api"}'] == 1
    assert numbers['machina_processes{process="worker"}'] == 1
    assert numbers["machina_run_slots"] == 1_000
    assert numbers['machina_redis_connections{client="broker",process="worker"}'] >= 1
    waits = 'machina_queue_wait_seconds_count{queue="streaming_priority"}'
    assert numbers[waits] == before[waits] + 1
    assert numbers["machina_commit_entries_total"] > before["machina_commit_entries_total"] + 5
    assert shared_dev.main.stderr == ""


def test_several_api_processes_answer_as_one_and_outlive_a_kill(shared_dev: Dev) -> None:
    port = shared_dev.start_api("--workers", "2")
    program, ask = shared_dev.programs[-1], ask_api(shared_dev, port)
    both = {'processes{process="api"}': 2, "permits": 20}
    wait_until(reaches(ask, **both), "both processes report")
    route = 'machina_http_requests_total{method="GET",route="/metrics",status="2xx"}'
    for _ in range(5):
        ask()
    wait_until(lambda: ask().get(route, 0) >= 6, "each process sees what the other counted")
    before = ask()[route]
    victim = next(pid for pid in shared_dev.pids("api") if parent(pid) == program.pid)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in shared_dev.pids("api"), "the process is dead")
    wait_until(reaches(ask, **both), "its successor reports", 20)
    assert ask()[route] >= before, "what was shown once stays counted"
    program.send(signal.SIGTERM)
    assert program.wait() == 0


def test_workers_answer_on_their_own_port_through_the_one_that_was_started(
    shared_dev: Dev,
) -> None:
    port = free_port()
    environ = {"MACHINA_METRICS_PORT": str(port)}
    options = ("--processes", "2", "--threads", "5", "--queues", "low_priority")
    program = shared_dev.start_worker(*options, environ=environ)
    ask = ask_port(port)
    wait_until(lambda: is_up(port), "the port is served", 20)
    both = {'processes{process="worker"}': 2, "run_slots": 10}
    wait_until(reaches(ask, **both), "both workers report", 20)
    victim = next(pid for pid in shared_dev.pids("worker") if parent(pid) == program.pid)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in shared_dev.pids("worker"), "the worker is dead")
    wait_until(reaches(ask, **both), "its successor reports", 20)
    second = shared_dev.start_worker(environ=environ)
    assert second.wait() == 2
    assert f"MACHINA_METRICS_PORT={port}" in second.stderr.splitlines()[-1]
    program.send(signal.SIGTERM)
    assert program.wait() == 0
    assert not is_up(port)


def test_a_worker_alone_answers_on_its_port(shared_dev: Dev) -> None:
    port = free_port()
    program = shared_dev.start_worker(
        *("--threads", "7", "--queues", "low_priority"),
        environ={"MACHINA_METRICS_PORT": str(port)},
    )
    wait_until(lambda: is_up(port), "the port is served", 20)
    alone = {'processes{process="worker"}': 1, "run_slots": 7}
    wait_until(reaches(ask_port(port), **alone), "the worker reports", 20)
    program.send(signal.SIGTERM)
    assert program.wait() == 0


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
    except httpx.TransportError:
        return False


def parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])
