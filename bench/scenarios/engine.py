"""The engine alone: a workflow of ten tasks that calls nobody, in one process."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from types import CodeType
from typing import Any

import structlog

from bench.result import Result, Scenario, Session, Table
from tests.builders import World, compute, workflow

TASKS = 10
ROUNDS = 9
RUNS = 300


def _bare_flow() -> dict[str, Any]:
    """Tasks with nothing to evaluate: what is left is the engine's own work for a task."""
    return workflow(*(compute(f"pass-{number}") for number in range(TASKS)))


def _flow() -> dict[str, Any]:
    task = [
        compute(
            f"add-{number}",
            inputs={"n": "$.get('n')"},
            outputs={"n": "$.get('n') + 1"},
            condition="$.get('n') >= 0",
        )
        for number in range(TASKS)
    ]
    return workflow(*task, inputs={"n": "$.get('n', 0)"}, outputs={"total": "$.get('n')"})


def run(session: Session) -> Result:
    """CPU per workflow, against its expressions alone in Python's own `eval`."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    rounds, runs = (1, 5) if session.quick else (ROUNDS, RUNS)
    ours, empty, plain = [], [], []
    for _ in range(rounds):
        ours.append(asyncio.run(_time_engine(_flow(), {"total": TASKS}, runs)))
        empty.append(asyncio.run(_time_engine(_bare_flow(), {}, runs)))
        plain.append(_time_plain(runs))
    seconds, bare = median(ours), median(plain)
    return Result(
        tables=[
            Table(
                f"Ten expression tasks (condition, input, output), medians of {rounds} rounds",
                ["what", "workflows/s", "µs per task", "ratio"],
                [
                    _row("engine", seconds, seconds),
                    _row("engine, tasks without expressions: its overhead", median(empty), seconds),
                    _row("its expressions in Python's eval", bare, seconds),
                ],
            )
        ],
        checked=[f"{rounds * runs} workflows gave {TASKS}"],
    )


def _row(what: str, seconds: float, engine: float) -> list[Any]:
    per_task = round(seconds * 1e6 / TASKS, 1)
    return [what, round(1 / seconds), per_task, f"{seconds / engine:.2f}"]


async def _time_engine(flow: dict[str, Any], outputs: dict[str, Any], runs: int) -> float:
    world = World()
    await world.run(flow, {"n": 0})
    began = time.process_time()
    for _ in range(runs):
        result = await world.run(flow, {"n": 0})
        assert result.error is None
        assert result.state == {"workflow-status": "executed", **outputs}
    return (time.process_time() - began) / runs


def _time_plain(runs: int) -> float:
    texts = ["state.get('n') >= 0", "state.get('n')", "state.get('n') + 1"]
    codes: list[CodeType] = [compile(text, "<bench>", "eval") for text in texts]
    began = time.process_time()
    for _ in range(runs):
        state = {"n": 0}
        for _ in range(TASKS):
            for code in codes:
                value = eval(code, {"state": state})  # noqa: S307  # our own three texts
            state["n"] = value
        assert state["n"] == TASKS
    return (time.process_time() - began) / runs


SCENARIO = Scenario("engine", "The engine alone", run, needs_bench_group=False)
