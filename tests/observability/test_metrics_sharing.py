"""Metrics over processes: sums, deaths and successors; and the port of a process without an API."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client import values

from machina.errors import SettingsInvalid
from machina.observability.exposition import CONTENT_TYPE, serve_metrics
from machina.observability.metrics import Metrics, make_metrics
from machina.observability.process_group import (
    DIRECTORY_VARIABLE,
    NAME_VARIABLE,
    ProcessGroup,
    open_group,
)
from machina.observability.sharing import join_group, make_collector
from tests.measuring import measured, series

ROOT = Path(__file__).parents[2]
ENDED = 'machina_runs_ended_total{kind="agent",outcome="executed"}'
CHILD = """
import os, sys
from machina.observability.metrics import make_metrics
from machina.observability.sharing import join_group
with join_group(os.environ) as share:
    metrics = make_metrics(share=share)
    metrics.runs.ended.labels("agent", "executed").inc(int(sys.argv[1]))
    metrics.runs.in_flight.set(int(sys.argv[2]))
    metrics.log.commit_seconds.observe(0.003)
    metrics.publish()
    print("published", flush=True)
    sys.stdin.read()
"""

Join = Callable[[str], Metrics]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    with open_group(tmp_path, environ={}) as opened:
        yield opened


@pytest.fixture
def join(group: ProcessGroup) -> Iterator[Join]:
    """What a process of the group does first; here, one after the other in this one."""
    with ExitStack() as stack:

        def join_as(name: str) -> Metrics:
            share = stack.enter_context(join_group(group.environ(name)))
            assert share is not None
            return make_metrics(share=share)

        yield join_as


def test_the_numbers_of_a_group_are_sums_whichever_process_is_asked(join: Join) -> None:
    first, second = join("worker-1"), join("worker-2")
    for metrics, count in ((first, 2), (second, 3)):
        metrics.runs.ended.labels("agent", "executed").inc(count)
        metrics.runs.slots.set(10)
        metrics.log.commit_seconds.observe(0.003)
        metrics.publish()
    shown = measured(first.source)
    assert shown == measured(second.source)
    assert shown[ENDED] == 5
    assert shown["machina_run_slots"] == 20
    assert shown['machina_commit_seconds_bucket{le="0.0025"}'] == 0
    assert shown['machina_commit_seconds_bucket{le="0.005"}'] == 2
    assert shown["machina_commit_seconds_count"] == 2
    assert shown["machina_commit_seconds_sum"] == 0.006


def test_a_group_shows_what_a_single_process_would(join: Join) -> None:
    alone, together = make_metrics(), join("api-1")
    for metrics in (alone, together):
        metrics.streams.opened.labels("resume").inc()
        metrics.process.requests.labels("GET", "/system/liveness", "2xx").inc()
        metrics.publish()
    assert measured(together.source) == measured(alone.source)


def test_what_is_not_published_is_not_shown_yet(join: Join) -> None:
    metrics = join("api-1")
    metrics.runs.buried.inc()
    assert measured(metrics.source)["machina_workers_buried_total"] == 0
    metrics.publish()
    assert measured(metrics.source)["machina_workers_buried_total"] == 1


def test_a_successor_counts_on_and_says_for_itself_what_it_holds(
    group: ProcessGroup, join: Join
) -> None:
    first = join("worker-1")
    first.runs.ended.labels("agent", "executed").inc(7)
    first.runs.in_flight.set(4)
    first.publish()
    group.forget("worker-1")
    successor = join("worker-1")
    successor.runs.ended.labels("agent", "executed").inc()
    successor.publish()
    shown = measured(successor.source)
    assert shown[ENDED] == 8
    assert shown["machina_runs_in_flight"] == 0
    assert len(list(group.directory.iterdir())) == 3, "restarts do not make more files"


def test_a_gauge_that_nobody_forgot_is_the_successors_all_the_same(join: Join) -> None:
    first = join("worker-1")
    first.runs.in_flight.set(4)
    first.publish()
    join("worker-1").publish()
    assert measured(first.source)["machina_runs_in_flight"] == 0


def test_forgetting_one_process_leaves_its_namesakes_alone(group: ProcessGroup, join: Join) -> None:
    for name in ("api-1", "api-11"):
        metrics = join(name)
        metrics.streams.permits.set(10)
        metrics.publish()
    group.forget("api-1")
    group.forget("never-seen")
    assert measured(make_collector(group.directory))["machina_permits"] == 10


def test_a_killed_process_takes_its_gauges_along_and_leaves_its_counts(group: ProcessGroup) -> None:
    def start(name: str, ended: int, in_flight: int) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(ended), str(in_flight)],
            cwd=ROOT,
            env=os.environ | group.environ(name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"published\n"
        return child

    source = make_collector(group.directory)
    with start("worker-1", 2, 5) as first, start("worker-2", 3, 7) as second:
        assert (measured(source)[ENDED], measured(source)["machina_runs_in_flight"]) == (5, 12)
        first.send_signal(signal.SIGKILL)
        first.wait()
        group.forget("worker-1")
        assert (measured(source)[ENDED], measured(source)["machina_runs_in_flight"]) == (5, 7)
        with start("worker-1", 1, 1) as successor:
            assert (measured(source)[ENDED], measured(source)["machina_runs_in_flight"]) == (6, 8)
            assert measured(source)["machina_commit_seconds_count"] == 3
            successor.kill()
        second.kill()


def test_a_process_alone_is_in_no_group_and_counts_without_a_file() -> None:
    with join_group({}) as share:
        assert share is None
        metrics = make_metrics()
        metrics.runs.slots.set(3)
        metrics.runs.buried.inc()
        metrics.runs.queue_wait.labels("high_priority").observe(0.2)
        metrics.publish()
        shown = measured(metrics.source)
    assert shown["machina_run_slots"] == 3
    assert shown["machina_workers_buried_total"] == 1
    assert shown['machina_queue_wait_seconds_sum{queue="high_priority"}'] == 0.2


def test_who_joins_a_group_does_not_pass_it_on(group: ProcessGroup) -> None:
    environ = {"HOME": "/", **group.environ("api-1")}
    with join_group(environ) as share:
        assert share is not None
    assert environ == {"HOME": "/"}


def test_what_was_counted_last_is_published_when_a_process_leaves(group: ProcessGroup) -> None:
    source = make_collector(group.directory)
    with join_group(group.environ("api-1")) as share:
        make_metrics(share=share).runs.buried.inc()
        assert measured(source)["machina_workers_buried_total"] == 0
    assert measured(source)["machina_workers_buried_total"] == 1
    assert values.ValueClass is values.MutexValue, "the library counts in its own way again"


def test_a_supervisor_within_a_group_puts_its_children_into_the_same(group: ProcessGroup) -> None:
    environ = group.environ("api")
    with open_group(environ=environ) as inner:
        assert inner.directory == group.directory
        assert inner.environ("api-1") == {
            DIRECTORY_VARIABLE: str(group.directory),
            NAME_VARIABLE: "api-1",
        }
    assert group.directory.exists(), "who made it removes it"


def test_a_group_has_a_private_directory_while_it_lives(tmp_path: Path) -> None:
    with open_group(environ={}) as first, open_group(environ={}) as second:
        assert first.directory != second.directory
        assert oct(first.directory.stat().st_mode & 0o777) == "0o700"
    assert not first.directory.exists()


def test_what_a_killed_group_left_behind_goes_with_the_next_one_there(tmp_path: Path) -> None:
    left = tmp_path / "machina-metrics-old"
    left.mkdir()
    (left / "counter_api.db").write_bytes(b"")
    (tmp_path / "store.sqlite3").write_bytes(b"")
    with open_group(tmp_path, environ={}) as group:
        assert {path.name for path in tmp_path.iterdir()} == {group.directory.name, "store.sqlite3"}
    assert [path.name for path in tmp_path.iterdir()] == ["store.sqlite3"]


def test_without_a_place_for_files_the_remedy_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsInvalid, match="TMPDIR"),
        open_group(tmp_path / "missing", environ={}),
    ):
        pass


def test_the_port_serves_the_text_until_the_process_stops(unused_tcp_port: int) -> None:
    metrics = make_metrics()
    metrics.runs.slots.set(1_000)
    url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
    with serve_metrics(metrics.source, "127.0.0.1", unused_tcp_port):
        answer = httpx.get(url)
        assert answer.headers["content-type"] == CONTENT_TYPE
        assert series(answer.content)["machina_run_slots"] == 1_000
        with (
            pytest.raises(SettingsInvalid, match=f"MACHINA_METRICS_PORT={unused_tcp_port}"),
            serve_metrics(metrics.source, "127.0.0.1", unused_tcp_port),
        ):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
