"""The catalogue: named by rule, true to the words of the code, explained on its page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from machina import errors
from machina.api.open_streams import Ending
from machina.breaker import State
from machina.errors import MachinaError
from machina.eventlog.answers import Answer
from machina.observability import metrics as catalogue
from machina.observability.exposition import expose
from machina.observability.families import Family
from machina.observability.metrics import make_metrics
from machina.observability.sampling import Sampler
from machina.observability.supervision import Supervisor
from machina.observability.watchdog import LoopWatchdog
from machina.queue.names import Queue
from machina.resources import BREAKER
from machina.runs.run import FINAL, RunKind
from machina.store.base import Collection
from machina.worker.interrupts import Interrupt
from tests.measuring import measured
from tests.running import eventually, running

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| `(machina_\w+)` \| (\w+) \| (.*?) ?\| (.+?) \| (.+) \|")
NAME = re.compile(r"machina_[a-z]+(_[a-z]+)*")


class Row(NamedTuple):
    family: Family
    advice: str


def read_page() -> Iterator[Row]:
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if row := ROW.fullmatch(line):
            labels = tuple(re.findall(r"`(\w+)`", row[3]))
            yield Row(Family(row[1], row[2], labels, row[4]), row[5])


def test_the_page_explains_every_metric_in_the_order_of_the_catalogue() -> None:
    rows = list(read_page())
    assert [row.family for row in rows] == list(make_metrics().catalogue)
    assert all(len(row.advice) > 20 for row in rows)


def test_what_the_page_and_its_alerts_name_exists() -> None:
    known = {family.name for family in make_metrics().catalogue}
    named = set(re.findall(r"machina_[a-z_]+", (ROOT / "docs" / "metrics.md").read_text()))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= known


@pytest.mark.parametrize("family", make_metrics().catalogue, ids=lambda family: family.name)
def test_a_metric_is_named_by_the_rule(family: Family) -> None:
    assert NAME.fullmatch(family.name)
    assert len(family.labels) <= 3
    assert not {"run_id", "request_id", "principal", "project"} & set(family.labels)
    assert family.meaning.endswith(".")
    assert family.name.endswith("_total") == (family.kind == "counter")
    if family.kind == "histogram":
        assert family.name.endswith("_seconds")


def test_the_words_of_the_labels_are_those_of_the_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, MachinaError)}
    calls = {name for name in vars(Collection) if not name.startswith("_")} | {"now"}
    assert set(catalogue.KINDS) == set(get_args(RunKind))
    assert set(catalogue.OUTCOMES) == set(FINAL)
    assert tuple(Queue) == catalogue.QUEUES
    assert set(catalogue.LEFT) == set(Interrupt) - {
        Interrupt.CANCEL,
        Interrupt.TIMEOUT,
        Interrupt.LOG_FULL,
    }
    assert set(catalogue.ANSWERS) == set(Answer) - {Answer.OK}
    assert set(catalogue.REFUSALS) <= codes
    assert tuple(Ending) == catalogue.ENDINGS
    assert tuple(State) == catalogue.STATES
    assert catalogue.BREAKERS == (BREAKER,)
    assert set(catalogue.CALLS) == calls


def test_every_known_combination_of_labels_is_there_at_zero() -> None:
    shown = measured(make_metrics().source)
    for kind in catalogue.KINDS:
        for outcome in catalogue.OUTCOMES:
            name = f'machina_runs_ended_total{{kind="{kind}",outcome="{outcome}"}}'
            assert shown[name] == 0
    assert shown['machina_breaker_processes{breaker="agent_streaming",state="half-open"}'] == 0
    assert set(shown.values()) == {0.0}
    assert not [name for name in shown if "_created" in name]


def test_two_sets_of_metrics_do_not_know_each_other() -> None:
    first, second = make_metrics(), make_metrics(CollectorRegistry())
    first.runs.buried.inc()
    assert measured(first.source)["machina_workers_buried_total"] == 1
    assert measured(second.source)["machina_workers_buried_total"] == 0


def test_importing_the_catalogue_makes_no_metric_and_opens_no_file() -> None:
    code = (
        "import sys; from prometheus_client import REGISTRY, values\n"
        "before = values.ValueClass\n"
        "import machina.observability.metrics, machina.observability.exposition\n"
        "names = [f.name for f in REGISTRY.collect()]\n"
        "sys.exit(any('machina' in n for n in names) or values.ValueClass is not before)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_text_says_type_and_meaning() -> None:
    text = expose(make_metrics().source).decode()
    assert "# HELP machina_runs_in_flight Runs that workers execute now.\n" in text
    assert "# TYPE machina_commit_seconds histogram\n" in text
    assert 'machina_commit_seconds_bucket{le="+Inf"} 0.0\n' in text


async def test_gauges_show_what_their_readings_say_until_the_process_ends() -> None:
    metrics = make_metrics()
    held = [3]
    sampler = Sampler(metrics, {metrics.runs.in_flight: lambda: held[0]}, every_seconds=0.01)
    async with running(sampler.run):
        await eventually(lambda: measured(metrics.source)["machina_runs_in_flight"] == 3)
        held[0] = 5
        await eventually(lambda: measured(metrics.source)["machina_runs_in_flight"] == 5)
        sampler = Sampler(metrics, {metrics.runs.in_flight: lambda: held[0]}, every_seconds=60)
    async with running(sampler.run):
        held[0] = 0
    assert measured(metrics.source)["machina_runs_in_flight"] == 0, "read once more at the end"


async def test_a_background_task_that_ends_is_counted_under_its_name() -> None:
    metrics = make_metrics()
    supervisor = Supervisor(first_pause=0.001, longest_pause=0.001, metrics=metrics)
    ends = [RuntimeError("gone")]

    async def work() -> None:
        if ends:
            raise ends.pop()
        await eventually(lambda: False, seconds=60)

    with capture_logs():
        supervisor.start("reader", work)
        assert measured(metrics.source)['machina_background_restarts_total{task="reader"}'] == 0
        await eventually(lambda: not ends and supervisor.tasks.get("reader") is not None)
        await supervisor.aclose()
    assert measured(metrics.source)['machina_background_restarts_total{task="reader"}'] == 1


async def test_the_lag_of_the_loop_is_measured_tick_by_tick() -> None:
    late: list[float] = []
    watchdog = LoopWatchdog(tick_seconds=0.01, on_tick=late.append)
    async with running(watchdog.run):
        await eventually(lambda: len(late) >= 3)
    assert all(0 <= seconds < 5 for seconds in late)
