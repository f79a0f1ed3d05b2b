"""Redis dies, freezes, forgets and fills up while somebody watches; real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from tests.fleet import assert_sound, shown_text
from tests.journeys.harness import Dev, replay, wait_until
from tests.journeys.watcher import Watcher, script

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

StartDev = Callable[..., Dev]


@contextmanager
def redis_of(dev: Dev) -> Iterator[redis.Redis]:
    """A client of the Redis that `dev` runs."""
    client = redis.Redis.from_url((dev.data_dir / "redis.url").read_text().strip(), protocol=2)
    try:
        yield client
    finally:
        client.close()


def test_a_redis_that_is_killed_costs_nothing_but_a_pause(start_dev: StartDev) -> None:
    dev = start_dev()
    with dev.client() as client:
        watcher = Watcher(client, script("tokens=200 delay_ms=20"))
        for count in (20, 80):
            watcher.wait_events(count)
            os.kill(dev.pid("redis"), signal.SIGKILL)
            wait_until(lambda: len(dev.pids("redis")) == 1, "redis is back")
        events = watcher.join()

        # With `everysec` a slow disk may cost the newest entries: then an attempt goes on.
        assert_sound(events)
        assert shown_text(events) == events[-1]["metadata"]["content"]
        assert watcher.cuts == 1, "the viewer stayed connected"
        assert replay(client, watcher.run_id) == events


def test_a_redis_that_is_silent_for_fifteen_seconds_fails_no_run(start_dev: StartDev) -> None:
    dev = start_dev()
    with dev.client() as client:
        watcher = Watcher(client, script("tokens=200 delay_ms=20"))
        watcher.wait_events(20)
        frozen = dev.pid("redis")
        os.kill(frozen, signal.SIGSTOP)
        time.sleep(15)
        os.kill(frozen, signal.SIGCONT)
        events = watcher.join()

        assert_sound(events)
        assert {e["id"].split("-")[0] for e in events} == {"1"}
        assert events[-1]["metadata"]["status"] == "executed"
        assert watcher.cuts == 1


def test_a_redis_that_forgets_everything_is_noticed_and_the_run_goes_on(
    start_dev: StartDev,
) -> None:
    dev = start_dev()
    with dev.client() as client, redis_of(dev) as server:
        watcher = Watcher(client, script("tokens=150 delay_ms=20"))
        watcher.wait_events(20)
        server.flushall()
        events = watcher.join()

        assert_sound(events)
        assert [e["id"] for e in events if e["type"] == "restart"] == ["2-1"]
        assert shown_text(events) == events[-1]["metadata"]["content"]


def test_a_redis_that_lost_its_tail_is_never_glossed_over(start_dev: StartDev) -> None:
    dev = start_dev()
    with dev.client() as client:
        watcher = Watcher(client, script("tokens=200 delay_ms=20"))
        watcher.wait_events(40)
        os.kill(dev.main.pid, signal.SIGSTOP)  # or it starts another one at once
        os.kill(dev.pid("redis"), signal.SIGKILL)
        wait_until(lambda: not dev.pids("redis"), "redis is gone")
        cut_tail(dev.data_dir / "redis", 2_000)
        os.kill(dev.main.pid, signal.SIGCONT)
        events = watcher.join()

        assert_sound(events)
        assert [e["id"] for e in events if e["type"] == "restart"] == ["2-1"]
        assert shown_text(events) == events[-1]["metadata"]["content"]
        assert replay(client, watcher.run_id)[-1] == events[-1]


def cut_tail(directory: Path, size: int) -> None:
    """Takes the last bytes off the append-only file, as a power failure would."""
    logs = sorted(directory.rglob("*.aof"), key=lambda path: path.stat().st_mtime)
    os.truncate(logs[-1], logs[-1].stat().st_size - size)


def test_a_redis_that_is_away_refuses_starts_with_503(start_dev: StartDev) -> None:
    dev = start_dev()
    with dev.client() as client:
        os.kill(dev.main.pid, signal.SIGSTOP)
        os.kill(dev.pid("redis"), signal.SIGKILL)
        wait_until(lambda: not dev.pids("redis"), "redis is gone")
        refused = client.post("/agent/stream/hello", json=script("tokens=1"))
        ready = client.get("/system/readiness")
        alive = client.get("/system/liveness")
        health = client.get("/system/streaming-health").json()
        os.kill(dev.main.pid, signal.SIGCONT)
        dev.wait_ready()
        accepted = client.post("/agent/stream/hello", json=script("tokens=1"))

    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["id"] == "queue_unavailable"
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert health["redis_streams"]["redis_healthy"] is False
    assert accepted.status_code == 200


def test_a_full_redis_ends_the_run_with_its_name_and_goes_on_when_there_is_room(
    start_dev: StartDev,
) -> None:
    dev = start_dev(environ={"MACHINA_OUTBOX_SECONDS": "3"})
    with dev.client() as client, redis_of(dev) as server:
        watcher = Watcher(client, script("tokens=2000 delay_ms=20"))
        watcher.wait_events(20)
        server.config_set("maxmemory", "1mb")
        refused = client.post("/agent/stream/hello", json=script("tokens=1"))

        def has_failed() -> bool:
            run = client.get(f"/execution/agent-run/{watcher.run_id}").json()["data"]
            return bool(run["status"] == "failed")

        wait_until(has_failed, "the run is given up", 20)
        server.config_set("maxmemory", "0")
        events = watcher.join()

    assert refused.status_code == 503
    assert_sound(events)
    assert events[-1]["metadata"]["error"]["code"] == "storage_full"


def test_a_client_that_comes_back_to_a_flushed_finished_run_is_told(start_dev: StartDev) -> None:
    dev = start_dev()
    with dev.client() as client, redis_of(dev) as server:
        events = Watcher(client, script("tokens=3 delay_ms=1")).join()
        run_id = events[0]["metadata"]["run_id"]
        server.flushall()
        gone: httpx.Response = client.get(f"/execution/agent-run/{run_id}/stream")
        run = client.get(f"/execution/agent-run/{run_id}").json()["data"]

    assert gone.status_code == 410
    assert gone.json()["error"]["id"] == "stream_expired"
    assert f"/execution/agent-run/{run_id}" in gone.json()["detail"]
    assert run["response"]["response_text"] == events[-1]["metadata"]["content"]
