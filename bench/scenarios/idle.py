"""What processes cost that have nothing to do."""

from __future__ import annotations

import time
from contextlib import ExitStack

from bench.deployments import Shape, running_guide, running_product
from bench.load import run_series, running_client
from bench.plan import Script, Series
from bench.result import Cell, Goal, Result, Scenario, Session, Table

SECONDS = 30.0
ROUNDS = 3
GOAL = 0.5


def run(session: Session) -> Result:
    """All deployments idle side by side, after each has served a few streams."""
    seconds, rounds = (1.0, 1) if session.quick else (SECONDS, ROUNDS)
    with ExitStack() as stack:
        client = stack.enter_context(running_client())
        product = running_product(session.home("machina"), Shape(threads=1000))
        deployments = [stack.enter_context(product)]
        if not session.quick:
            guide = running_guide(session.home("guide"), pool="gevent", concurrency=1000)
            deployments.append(stack.enter_context(guide))
        targets = tuple(deployment.target for deployment in deployments)
        run_series(client, Series(targets, 3, 0.0, Script(3)))
        time.sleep(min(seconds, 5))
        shares: dict[str, list[dict[str, float]]] = {one.name: [] for one in deployments}
        for number in range(rounds):
            session.say(f"round {number + 1} of {rounds}")
            before = {one.name: one.cpu() for one in deployments}
            began = time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            for one in deployments:
                now = one.cpu()
                percent = {p: (now[p] - before[one.name][p]) / took * 100 for p in now}
                shares[one.name].append(percent)
    middle = {name: _middle(all_of) for name, all_of in shares.items()}
    rows: list[list[Cell]] = [
        [name, *(round(percent[part], 2) for part in ("api", "worker", "redis"))]
        for name, percent in middle.items()
    ]
    return Result(
        goals=[Goal("idle worker", middle["machina"]["worker"], GOAL, "% of a core")],
        tables=[
            Table(
                f"% of a core while idle, medians of {rounds} × {seconds:g} s",
                ["deployment", "API", "worker", "Redis"],
                rows,
            )
        ],
        checked=["3 streams of each whole and in order before the silence"],
    )


def _middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {part: sorted(one[part] for one in rounds)[len(rounds) // 2] for part in rounds[0]}


SCENARIO = Scenario("idle", "Idle processes", run, needs_bench_group=False)
