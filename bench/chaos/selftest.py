"""Tests the oracle before it is believed: a clean toy must pass, every mistake must be caught."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from bench.chaos.aftermath import ask_again, leaks, list_runs
from bench.chaos.books import judge_exits
from bench.chaos.client import Client, Place
from bench.chaos.oracle import Wrong
from bench.chaos.plan import FaultPlan, Habits, Kind, RunPlan, client_random
from bench.chaos.seen import Fault
from bench.chaos.toy import open_toy
from bench.chaos.toy_run import EXPECTED, Bug
from bench.chaos.verdict import Verdict, convict, never_happened

AT_ONCE: Final = 4
CLIENTS: Final = 6
TOKENS: Final = 24
ROUNDS: Final = 10
"""Some things depend on when who leaves: so many tries they get, by further seeds."""
FORGIVEN: Final = (
    *("attempt superseded", "resume crossed attempts", "resume on another instance"),
    *("rejoined by key", "client left", "stream ended before done", "worker killed mid-stream"),
    *("api killed with open streams", "cancelled"),
)
HABITS: Final = Habits(
    drop_share=0.06,
    rejoin_share=0.5,
    away_seconds=0.02,
    silence_seconds=0.5,
    linger_seconds=0.3,
    run_seconds=20.0,
    longest_wait=0.05,
)
LEAK_SECONDS: Final = 0.4
IMPATIENT_SECONDS: Final = 1.0
IMPATIENT: Final = (Bug.NEVER_ENDS, Bug.HANGS)
"""Mistakes that one notices by waiting: not for long."""


async def try_oracle(seed: int) -> list[str]:
    """Every way in which the oracle failed; empty when it can be believed."""
    some = asyncio.Semaphore(AT_ONCE)

    async def try_one(bug: Bug) -> list[str]:
        async with some:
            return await _try_bug(bug, seed)

    found = await asyncio.gather(_try_clean(seed), *(try_one(bug) for bug in Bug))
    return [*_gaps_in_the_test(), *(complaint for complaints in found for complaint in complaints)]


async def _try_bug(bug: Bug, seed: int) -> list[str]:
    """A toy with a mistake is accused of it."""
    found: set[str] = set()
    for number in range(ROUNDS):
        verdict = await run_toy(bug, seed + number)
        found.update(verdict.by_kind())
        if EXPECTED[bug] in found:
            return []
    return [f"a toy that {bug}: {EXPECTED[bug]} not in {sorted(found)}"]


async def _try_clean(seed: int) -> list[str]:
    """A clean toy is accused of nothing, until all has happened to it that must be forgiven."""
    seen: Counter[str] = Counter()
    for number in range(ROUNDS):
        verdict = await run_toy(None, seed + number)
        if verdict.violations:
            return [f"clean toy, accused of: {violation}" for violation in verdict.violations]
        seen.update(verdict.counters)
        missing = [name for name in FORGIVEN if not seen[name]]
        if not missing:
            return []
    return [f"clean toy: never seen: {name}" for name in missing]


async def run_toy(bug: Bug | None, seed: int) -> Verdict:
    """A few clients on a toy, judged like everything else."""
    verdict = Verdict("toy", {"bug": bug, "seed": seed})
    seconds = IMPATIENT_SECONDS if bug in IMPATIENT else HABITS.run_seconds
    habits = dataclasses.replace(HABITS, run_seconds=seconds)
    async with open_toy(bug, seed) as toy:
        place = Place(toy.urls, "toy")
        async with place.session(habits.silence_seconds) as session:
            clients = [
                Client(place, session, habits, client_random(seed, number))
                for number in range(CLIENTS)
            ]
            watches = await asyncio.gather(
                *(client.watch(plan) for client, plan in zip(clients, _plans(bug), strict=True))
            )
        toy.quiet = True
        await ask_again(place, watches, seconds=seconds)
        rows = await list_runs(place)
        leaked = await leaks(place, LEAK_SECONDS)
        convict(verdict, watches, toy.faults, rows, leaked)
    return verdict


def _plans(bug: Bug | None) -> Iterator[RunPlan]:
    for number in range(CLIENTS):
        # A cancelled run may end early: it would hide mistakes that wait for their moment.
        cancelled = bug is None and number % 3 == 2
        yield RunPlan(f"toy-{number}", TOKENS, 2, cancel_after=TOKENS // 2 if cancelled else None)


def _gaps_in_the_test() -> Iterator[str]:
    """What needs no toy: every kind of accusation has a test, and silence is no success."""
    stopped = Fault(FaultPlan(0, Kind.API_TERM, 0.0, 0), at=1.0, over=2.0, exit_code=1)
    exits = [violation.wrong for violation in judge_exits([stopped])]
    if exits != [Wrong.BAD_EXIT]:
        yield "a stop that failed was not noticed"
    tested = {*EXPECTED.values(), *exits}
    yield from (f"nothing shows that {wrong} can be found" for wrong in set(Wrong) - tested)
    unfired = Fault(FaultPlan(0, Kind.WORKER_KILL, 0.0, 0))
    if len(never_happened([unfired], {})) != 3:
        yield "a fault that never fired was not noticed"


def describe(complaints: Sequence[str]) -> str:
    """The outcome in one line."""
    if complaints:
        return f"oracle FAIL {len(complaints)} complaints"
    return f"oracle PASS {len(Bug)} mistakes caught, a clean toy left alone"
