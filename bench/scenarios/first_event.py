"""Time to the first event, one stream after the other: at once, and after the servers were idle."""

from __future__ import annotations

import functools
from contextlib import ExitStack

from bench.deployments import running_generator, running_guide, running_product
from bench.load import run_series, running_client
from bench.plan import Script, Series, Spread
from bench.result import Goal, Result, Scenario, Session, Table

SAMPLES = 400
IDLE_SAMPLES = 220
IDLE_SECONDS = 0.6
QUICK_SAMPLES = 5
WARM_UP = 20
ANSWER = Script(tokens=1)


def _run(session: Session, *, after_idle: bool) -> Result:
    samples = IDLE_SAMPLES if after_idle else SAMPLES
    gap = IDLE_SECONDS if after_idle else 0.0
    if session.quick:
        samples, gap = QUICK_SAMPLES, min(gap, 0.1)
    with ExitStack() as stack:
        client = stack.enter_context(running_client())
        deployments = [
            stack.enter_context(running_product(session.home("machina"))),
            stack.enter_context(running_generator(session.home("generator"))),
        ]
        if not session.quick:  # the guide's packages are in the bench group only
            guide = running_guide(session.home("guide"), pool="gevent", concurrency=100)
            deployments.append(stack.enter_context(guide))
        targets = tuple(deployment.target for deployment in deployments)
        run_series(client, Series(targets, min(WARM_UP, samples), 0.0, ANSWER))
        session.say(f"{samples} samples, {gap:g} s apart")
        times = run_series(client, Series(targets, samples, gap, ANSWER))
    return _result(times, samples, gap, after_idle=after_idle)


def _result(times: dict[str, list[float]], samples: int, gap: float, *, after_idle: bool) -> Result:
    spreads = {name: Spread.of(values) for name, values in times.items()}
    ours, bound = spreads["machina"], spreads["generator"]
    over = Spread.of([a - b for a, b in zip(times["machina"], times["generator"], strict=True)])
    table = Table(
        f"Request to first event, {samples} samples each in turn, ms",
        ["deployment", "p50", "p99", "longest"],
        [[name, round(s.p50, 2), round(s.p99, 2), round(s.most, 2)] for name, s in spreads.items()],
    )
    table.rows.append(
        ["machina over generator, by pair", round(over.p50, 2), round(over.p99, 2), over.most]
    )
    if after_idle:
        goals = [Goal("first event after idle, p99", ours.p99, 15.0, "ms")]
    else:
        goals = [
            Goal("first event over the generator, p50", ours.p50 - bound.p50, 3.0, "ms"),
            Goal("first event over the generator, p99", ours.p99 - bound.p99, 10.0, "ms"),
        ]
    return Result(
        goals=goals,
        tables=[table],
        checked=[f"{samples * len(times)} streams whole, in order, with one end each"],
        notes=[f"Each server was idle for {gap:g} s before a sample."] if gap else [],
    )


SERIAL = Scenario(
    "first-event",
    "Time to the first event, serial",
    functools.partial(_run, after_idle=False),
    needs_bench_group=False,
)
AFTER_IDLE = Scenario(
    "first-event-idle",
    "Time to the first event after idle",
    functools.partial(_run, after_idle=True),
    needs_bench_group=False,
)
