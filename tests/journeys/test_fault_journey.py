"""Parts are killed, stopped and told to go while somebody watches; real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fleet import assert_sound, shown_text
from tests.journeys.harness import Dev, bare_environment, replay, wait_until
from tests.journeys.watcher import Watcher, ask, script

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
StartDev = Callable[..., Dev]


def test_a_killed_worker_is_replaced_and_the_stream_goes_on(start_dev: StartDev) -> None:
    dev = start_dev()
    with dev.client() as client:
        watcher = Watcher(client, script("tokens=150 delay_ms=20"))
        watcher.wait_events(20)
        killed = time.monotonic()
        os.kill(dev.pid("worker"), signal.SIGKILL)
        events = watcher.join()

        assert_sound(events)
        restart = next(e for e in events if e["type"] == "restart")
        assert restart["id"] == "2-1"
        assert restart["metadata"]["content"] == ""
        assert shown_text(events) == events[-1]["metadata"]["content"]
        assert replay(client, watcher.run_id) == events
        gap = watcher.times[events.index(restart)] - killed
        print(f"kill -9 of the worker to the next event: {gap:.1f} s")
        assert gap < 15


def test_a_worker_told_to_go_hands_its_run_back_at_once(start_dev: StartDev) -> None:
    dev = start_dev()
    with dev.client() as client:
        watcher = Watcher(client, script("tokens=150 delay_ms=20"))
        watcher.wait_events(20)
        os.kill(dev.pid("worker"), signal.SIGTERM)
        events = watcher.join()

        assert_sound(events)
        assert [e["id"] for e in events if e["type"] == "restart"] == ["2-1"]
        run = client.get(f"/execution/agent-run/{watcher.run_id}").json()["data"]
        assert run["status"] == "agent-executed"


def test_a_stopped_worker_that_wakes_later_is_fenced(start_dev: StartDev) -> None:
    dev = start_dev()
    first = dev.pid("worker")
    with dev.client() as client:
        watcher = Watcher(client, script("tokens=300 delay_ms=20"))
        watcher.wait_events(20)
        os.kill(first, signal.SIGSTOP)
        dev.start_worker()
        watcher.wait_events(1, "restart")
        os.kill(first, signal.SIGCONT)
        events = watcher.join()

        assert_sound(events)
        assert {e["id"].split("-")[0] for e in events} == {"1", "2"}
        time.sleep(1)
        assert replay(client, watcher.run_id) == events


def test_a_run_cancelled_before_any_worker_takes_it_ends_at_once(start_dev: StartDev) -> None:
    dev = start_dev()
    worker = dev.pid("worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        with dev.client() as client:
            watcher = Watcher(client, script("tokens=5 delay_ms=1"))
            wait_until(lambda: bool(watcher.run_id), "the stream is open")
            answer = client.post(f"/execution/agent-run/{watcher.run_id}/cancel")
            events = watcher.join()

            assert answer.status_code == 200
            assert [e["type"] for e in events] == ["start", "done"]
            assert events[-1]["metadata"]["status"] == "cancelled"
    finally:
        os.kill(worker, signal.SIGCONT)


def test_a_cancel_closes_the_connection_to_the_provider(start_dev: StartDev) -> None:
    with provider() as (base_url, seen):
        dev = start_dev(environ={"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-canary"})
        with dev.client() as client:
            body = ask("[[provider: n=2000 delay_ms=20]]")
            body["messages"].insert(0, {"role": "system", "content": "Be brief.", "name": "x"})
            watcher = Watcher(client, body)
            watcher.wait_events(3)
            cancelled = time.monotonic()
            client.post(f"/execution/agent-run/{watcher.run_id}/cancel")
            wait_until(lambda: seen()["open_connections"] == 0, "the provider is left alone")
            closed = time.monotonic() - cancelled
            events = watcher.join()

        print(f"cancel to closed provider connection: {closed:.2f} s")
        assert events[-1]["metadata"]["status"] == "cancelled"
        (request,) = seen()["requests"]
        assert request["body"]["messages"] == body["messages"]


def test_permits_come_back_however_a_client_leaves(start_dev: StartDev) -> None:
    dev = start_dev(environ={"MAX_CONCURRENT_STREAMS": "2"})
    with dev.client() as client:
        long = script("tokens=500 delay_ms=20")
        with (
            client.stream("POST", "/agent/stream/hello", json=long) as one,
            client.stream("POST", "/agent/stream/hello", json=long) as two,
        ):
            refused = client.post("/agent/stream/hello", json=long)
            with client.stream("GET", one.headers["content-location"]) as joined:
                assert joined.status_code == 200  # whoever comes back is never refused
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["status"] == "error"
            assert one.status_code == two.status_code == 200
        health = "/system/streaming-health"

        def free() -> bool:
            streams: dict[str, int] = client.get(health).json()["web_worker_streams"]
            return streams == {"active": 0, "max": 2, "available": 2}

        wait_until(free, "both permits are back", 5)


def test_dev_goes_on_with_its_runs_after_kill_9(start_dev: StartDev) -> None:
    dev = start_dev()
    with dev.client() as client:
        watcher = Watcher(client, script("tokens=100 delay_ms=30"))
        watcher.wait_events(10)
        os.kill(dev.main.pid, signal.SIGKILL)
        dev.main.wait()
        dev.start()
        dev.wait_ready()
        events = watcher.join()

        assert_sound(events)
        assert events[-1]["metadata"]["status"] == "executed"
        assert replay(client, watcher.run_id) == events


@contextmanager
def provider() -> Iterator[tuple[str, Callable[[], Any]]]:
    """The provider server of the tests as a process: its base URL, and what it has seen."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.provider_server", "--port", "0"],
        cwd=ROOT,
        env=bare_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        url = f"http://127.0.0.1:{port}"
        yield f"{url}/v1", lambda: httpx.get(f"{url}/_seen").json()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
