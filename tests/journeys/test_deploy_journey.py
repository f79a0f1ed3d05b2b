"""Instances come and go under load, and nobody who resumes notices; real processes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from tests.fleet import assert_sound, shown_text
from tests.journeys.harness import Dev, Program, free_port, replay, wait_until
from tests.journeys.watcher import Watcher, script

pytestmark = [pytest.mark.journey, pytest.mark.timeout(180)]

StartDev = Callable[..., Dev]
RESTARTS = 10
WATCHERS = 12


def test_ten_rolling_restarts_of_the_apis_are_invisible_to_clients_that_resume(
    start_dev: StartDev,
) -> None:
    dev = start_dev(environ={"MAX_CONCURRENT_STREAMS": "100", "MACHINA_DRAIN_SECONDS": "0.5"})
    instances = [start_instance(dev) for _ in range(2)]
    dev.start_worker()
    with ExitStack() as stack:
        ports = [port for port, _ in instances] + [dev.port]
        clients = [stack.enter_context(dev.client(port=port)) for port in ports]
        watchers = [
            Watcher(random.choice(clients), script("tokens=300 delay_ms=60"), elsewhere=clients)
            for _ in range(WATCHERS)
        ]
        for watcher in watchers:
            watcher.wait_events(1)
        for number in range(RESTARTS):
            port, program = instances[number % len(instances)]
            began = time.monotonic()
            program.send(signal.SIGTERM)
            assert program.wait() == 0
            assert time.monotonic() - began < 5
            instances[number % len(instances)] = start_instance(dev, port)
        streams = [watcher.join() for watcher in watchers]
        for watcher, events in zip(watchers, streams, strict=True):
            assert_sound(events)
            assert {e["id"].split("-")[0] for e in events} == {"1"}
            assert events[-1]["metadata"]["status"] == "executed"
            assert shown_text(events) == events[-1]["metadata"]["content"]
            assert watcher.broken_lines == 0
            assert replay(clients[-1], watcher.run_id) == events
        assert sum(watcher.cuts for watcher in watchers) > WATCHERS, "the restarts were noticed"


def start_instance(dev: Dev, port: int | None = None) -> tuple[int, Program]:
    """One more API process, ready."""
    port = port or free_port()
    program = dev.run("api", "--port", str(port), "--data-dir", str(dev.data_dir))
    dev.wait_ready(port=port)
    return port, program


def test_workers_told_to_go_one_after_the_other_spend_no_attempt(start_dev: StartDev) -> None:
    dev = start_dev(environ={"MAX_CONCURRENT_STREAMS": "100"})
    with dev.client() as client:
        watchers = [Watcher(client, script("tokens=200 delay_ms=30")) for _ in range(6)]
        for watcher in watchers:
            watcher.wait_events(3)
        for _ in range(4):
            before = set(dev.pids("worker"))
            for pid in before:
                os.kill(pid, signal.SIGTERM)
            wait_until(partial(has_new_worker, dev, before), "a new worker")
            time.sleep(1)
        for watcher in watchers:
            events = watcher.join()
            assert_sound(events)
            assert events[-1]["metadata"]["status"] == "executed"


def has_new_worker(dev: Dev, before: set[int]) -> bool:
    return bool(set(dev.pids("worker")) - before)


def test_several_processes_behind_one_port_serve_and_stop_together(start_dev: StartDev) -> None:
    dev = start_dev()
    port = free_port()
    program = dev.run(
        "api", "--port", str(port), "--workers", "2", "--data-dir", str(dev.data_dir),
        environ={"MAX_CONCURRENT_STREAMS": "3"},
    )  # fmt: skip
    dev.wait_ready(port=port)
    children = [pid for pid in dev.pids("api") if pid != program.pid]
    assert len(children) >= 2
    with dev.client(port=port) as client:
        watchers = [Watcher(client, script("tokens=40 delay_ms=20")) for _ in range(3)]
        for watcher in watchers:
            assert_sound(watcher.join())
    program.send(signal.SIGTERM)
    assert program.wait() == 0
