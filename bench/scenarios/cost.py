"""CPU per delivered event under steady load: the product, the guide's architecture, the bound."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from statistics import median

from bench.deployments import running_generator, running_guide, running_product
from bench.load import SATURATED, Measured, Steady, measure, running_client
from bench.result import Cell, Goal, Result, Scenario, Session, Table

ROUNDS = 3
FULL = Steady(streams=200, per_second=50, ramp_seconds=4, window_seconds=8)
QUICK = Steady(streams=4, per_second=20, ramp_seconds=0.5, window_seconds=1)
PREFORK = 6
"""Processes the guide gives to streaming."""
GREENLETS = 1000
GOAL = 0.25
HEAD = [
    "deployment",
    "delivered/s",
    "of offered",
    "events per write",
    "API",
    "worker",
    "Redis",
    "all, µs/event",
]
FIRST = ["first event p50, ms", "p99"]


def run(session: Session) -> Result:
    """Interleaved rounds; each goal compares medians of the same rounds."""
    steady, rounds = (QUICK, 1) if session.quick else (FULL, ROUNDS)
    # Six streams run at once in the prefork pool; more would only wait there, for minutes.
    few = replace(steady, streams=min(PREFORK, steady.streams))
    by_name: dict[str, list[Measured]] = {}
    with ExitStack() as stack:
        enter = stack.enter_context
        client = enter(running_client())
        product = enter(running_product(session.home("machina")))
        gevent = running_guide(session.home("gevent"), pool="gevent", concurrency=GREENLETS)
        prefork = running_guide(session.home("prefork"), pool="prefork", concurrency=PREFORK)
        turns = [
            (product, steady),
            (enter(gevent), steady),
            (enter(running_generator(session.home("generator"))), steady),
            (product, few),
            (enter(prefork), few),
        ]
        for number in range(rounds):
            for deployment, load in turns:
                name = deployment.name + (f", {load.streams} streams" if load is few else "")
                session.say(f"round {number + 1} of {rounds}: {name}")
                by_name.setdefault(name, []).append(measure(client, deployment, load))
    return _result(by_name, steady)


def _result(by_name: dict[str, list[Measured]], steady: Steady) -> Result:
    rows = [_row(name, measured) for name, measured in by_name.items()]
    ratios = [
        ours.cost() / theirs.cost()
        for ours, theirs in zip(by_name["machina"], by_name["guide, gevent"], strict=True)
    ]
    table = Table(
        f"{steady.streams} streams × {steady.per_second:g} pieces/s if not said otherwise, "
        f"medians of {len(ratios)} rounds, µs of CPU per event",
        HEAD + FIRST,
        rows,
    )
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    result = Result(
        goals=[Goal("CPU per event over the guide's (gevent)", median(ratios), GOAL, "×")],
        tables=[table],
        checked=[
            f"{sum(one.all_events for one in all_of)} events of {name}: none lost, repeated or "
            "out of order, one end per stream, the words of the answer"
            for name, all_of in by_name.items()
        ],
        notes=[f"The ratio over the guide by round: {spread}."],
    )
    busiest = max(one.client_share for all_of in by_name.values() for one in all_of)
    result.notes.append(
        f"The load client used at most {busiest:.0%} of a core"
        + ("; it was a limit." if busiest > SATURATED else ".")
    )
    return result


def _row(name: str, measured: list[Measured]) -> list[Cell]:
    def middle(values: list[float]) -> float:
        return round(median(values), 1)

    return [
        name,
        round(median(one.delivered for one in measured)),
        f"{median(one.delivered / one.offered for one in measured):.0%}",
        middle([one.events / max(one.writes, 1) for one in measured]),
        *(
            middle([one.cost(part) for one in measured]) if part in measured[0].cpu else "–"
            for part in ("api", "worker", "redis")
        ),
        middle([one.cost() for one in measured]),
        middle([one.first_ms.p50 for one in measured]),
        middle([one.first_ms.p99 for one in measured]),
    ]


SCENARIO = Scenario("cost", "CPU per delivered event", run)
