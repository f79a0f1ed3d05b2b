"""A thousand runs in flight on one worker process, and what they cost while they wait."""

from __future__ import annotations

import time
from contextlib import ExitStack

from bench.deployments import Deployment, Shape, running_guide, running_product
from bench.load import LoadClient, ask_report, running_client
from bench.machine import thread_count
from bench.plan import Load, Script, to_line
from bench.result import Cell, Goal, Result, Scenario, Session, Table

RUNS = 1000
RAMP_SECONDS = 12.0
HOLD_SECONDS = 15.0
QUICK = 10


def run(session: Session) -> Result:
    """Every run waits for its model until long after the last one has begun."""
    runs = QUICK if session.quick else RUNS
    ramp, hold = (0.5, 1.0) if session.quick else (RAMP_SECONDS, HOLD_SECONDS)
    rows: list[list[Cell]] = []
    held: dict[str, int] = {}
    with ExitStack() as stack:
        client = stack.enter_context(running_client())
        product = running_product(session.home("machina"), Shape(threads=runs))
        deployments = [stack.enter_context(product)]
        if not session.quick:
            guide = running_guide(session.home("guide"), pool="gevent", concurrency=runs)
            deployments.append(stack.enter_context(guide))
        for deployment in deployments:
            session.say(f"{runs} runs: {deployment.name}")
            _one(client, deployment, 5, 0.1, 0.5)  # what is allocated once is not a run's
            row, held[deployment.name] = _one(client, deployment, runs, ramp, hold)
            rows.append(row)
    columns = ["deployment", "runs at once", "threads", "worker, KiB/run", "worker, % of a core"]
    return Result(
        goals=[Goal("runs in flight on one worker", held["machina"], runs, "", at_most=False)],
        tables=[Table(f"{runs} runs that wait for their model", columns, rows)],
        checked=[f"{runs} runs of each whole and in order, with one end each"],
    )


def _one(
    client: LoadClient, deployment: Deployment, runs: int, ramp: float, hold: float
) -> tuple[list[Cell], int]:
    script = Script(tokens=5, delay_ms=100, first_ms=round((ramp + hold + 3) * 1000))
    rss = deployment.rss("worker")
    client.send(to_line("load", Load(deployment.target, runs, ramp, script)))
    time.sleep(ramp + 1)
    since, before = time.monotonic_ns(), deployment.cpu()["worker"]
    time.sleep(hold)
    until, after = time.monotonic_ns(), deployment.cpu()["worker"]
    threads = sum(thread_count(pid) for pid in deployment.parts["worker"]())
    kib = (deployment.rss("worker") - rss) / runs
    client.answer()
    report = ask_report(client, since, until, f"{runs} runs of {deployment.name}")
    held: int = report["open_throughout"]
    share = (after - before) * 1e9 / (until - since)
    return [deployment.name, held, threads, round(kib, 1), round(share * 100, 2)], held


SCENARIO = Scenario("in-flight", "A thousand runs in flight", run, needs_bench_group=False)
