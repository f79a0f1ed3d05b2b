"""The command: `python -m bench.chaos --streams 200 --faults 20 --seed 7`."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.chaos.fleet import NotStarted
from bench.chaos.load import AFTER_LAST_SECONDS, FIRST_FAULT_SECONDS, Order, Shape, run_load
from bench.chaos.plan import DECKS, Habits, Kind, deck_of
from bench.chaos.selftest import describe, try_oracle
from bench.chaos.slow_readers import run_slow_readers
from bench.chaos.stampede import run_stampede
from bench.chaos.verdict import Verdict

SHAPE: Final = Shape()
SCENARIOS: Final = ("load", "cancel", "stampede", "slow-readers")
STREAMS: Final = {"load": 200, "cancel": 50, "stampede": 500, "slow-readers": 100}


def main() -> int:
    """Tests the oracle, then runs what was asked for; 0 if everything held."""
    arguments = _parser().parse_args()
    complaints = asyncio.run(try_oracle(arguments.seed))
    print(describe(complaints), flush=True)
    for complaint in complaints:
        print(f"  {complaint}")
    if complaints or arguments.self_test:
        return 1 if complaints else 0
    directory = arguments.report or Path(tempfile.mkdtemp(prefix="machina-chaos-"))
    home = directory.absolute() / "fleet"
    home.mkdir(parents=True)
    load_before = os.getloadavg()[0]
    try:
        verdict = asyncio.run(_run(arguments, home))
    except NotStarted as failed:
        print(f"chaos FAIL {arguments.scenario} seed={arguments.seed} {failed}")
        return 1
    verdict.details["Machine"] = {
        "cpus": os.cpu_count(),
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "own_cpu_seconds": round(time.process_time(), 1),
    }
    path = verdict.write(directory)
    if verdict.passed and not arguments.keep:
        shutil.rmtree(home, ignore_errors=True)
    for missing in verdict.missing:
        print(f"  never happened: {missing}")
    for violation in verdict.violations[:10]:
        print(f"  {violation.wrong} run {violation.run_id}: {violation.detail}")
    print(f"report: {path}")
    print(verdict.line())
    return 0 if verdict.passed else 1


async def _run(arguments: argparse.Namespace, home: Path) -> Verdict:
    streams = arguments.streams or STREAMS[arguments.scenario]
    shape = Shape(arguments.apis, arguments.workers, arguments.drain_seconds)
    verdict = Verdict(arguments.scenario, {"seed": arguments.seed, "streams": streams})
    if arguments.scenario == "stampede":
        await run_stampede(arguments.seed, streams, shape, verdict, home)
    elif arguments.scenario == "slow-readers":
        await run_slow_readers(arguments.seed, streams, shape, verdict, home)
    else:
        order = _order(arguments, streams, shape)
        verdict.options = {
            **verdict.options,
            "profile": arguments.profile if order.faults else "none",
            "planned": order.faults,
            "seconds": round(order.seconds),
        }
        await run_load(order, verdict, home)
    return verdict


def _order(arguments: argparse.Namespace, streams: int, shape: Shape) -> Order:
    cancels = arguments.scenario == "cancel"
    faults = 0 if cancels else arguments.faults
    every = arguments.every
    if arguments.seconds is not None and faults:
        busy = arguments.seconds - FIRST_FAULT_SECONDS - AFTER_LAST_SECONDS
        every = max(busy, 0.0) / faults
    habits = Habits(cancel_share=1.0, drop_share=0.0) if cancels else Habits()
    return Order(
        arguments.seed,
        streams,
        faults,
        deck_of(arguments.profile),
        every,
        shape,
        habits,
        longest=arguments.longest,
        least_seconds=arguments.seconds or 0.0,
    )


def profile(text: str) -> str:
    """A profile as the command line gives it.

    Raises:
        ValueError: a part of it is not known.
    """
    deck_of(text)
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos",
        description="Breaks a real deployment by a seed while clients watch, and judges what they "
        "saw. The oracle is tested first, on a toy with mistakes.",
    )
    add = parser.add_argument
    add("--scenario", choices=SCENARIOS, default="load")
    add("--streams", type=int, help="clients at once")
    add("--faults", type=int, default=20, help="how many faults are fired")
    add("--seed", type=int, default=7, help="decides every fault, run and drop")
    add(
        "--profile",
        type=profile,
        default="mixed",
        help=f"which faults: {', '.join(DECKS)}, or single ones ({', '.join(Kind)}); "
        "several are joined by '+'",
    )
    add("--every", type=float, default=3.0, help="seconds from one fault to the next")
    add("--seconds", type=float, help="how long clients start new runs; decides --every")
    add("--longest", type=float, default=10.0, help="seconds of the longest run")
    add("--apis", type=int, default=SHAPE.apis)
    add("--workers", type=int, default=SHAPE.workers)
    add("--drain-seconds", type=float, default=SHAPE.drain_seconds, help="of every API")
    add("--report", type=Path, help="directory for report.json and report.md")
    add("--keep", action="store_true", help="keep data and logs of the deployment when it passed")
    add("--self-test", action="store_true", help="only test the oracle")
    return parser


if __name__ == "__main__":
    sys.exit(main())
