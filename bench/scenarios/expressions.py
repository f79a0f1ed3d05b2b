"""Expressions, compiled and cached, against the same text in Python's own `eval`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from bench.result import Cell, Goal, Result, Scenario, Session, Table
from bench.scenarios.timing import interleave
from machina.expressions import Scope, evaluate

ROUNDS = 15
STATE: dict[str, Any] = {"x": 1, "items": [{"n": number} for number in range(20)]}
CASES = {
    "a lookup": ("$.get('x')", 1, 5.0),
    "a comprehension over 20 items": (
        "[item.get('n') + 1 for item in $.get('items')]",
        list(range(1, 21)),
        30.0,
    ),
    "a condition": ("$.get('x') == 1 and len($.get('items')) > 3", True, None),
}


def run(session: Session) -> Result:
    """CPU per evaluation with the text in the cache, as the engine evaluates it."""
    scope = Scope(STATE, context=STATE)
    result = Result()
    rows: list[list[Cell]] = []
    for name, (text, expected, limit) in CASES.items():
        assert evaluate(text, scope) == expected
        code = compile(text.replace("$", "state"), "<bench>", "eval")
        pieces: dict[str, Callable[[], object]] = {
            "ours": functools.partial(evaluate, text, scope),
            "python": functools.partial(eval, code, {"state": STATE}),
        }
        times = interleave(pieces, 1 if session.quick else ROUNDS)
        ratio = times["ours"] / times["python"]
        ours, python = (round(times[name], 2) for name in pieces)
        rows.append([f"`{text}`", ours, python, f"{ratio:.1f}×"])
        if limit is not None:
            result.goals.append(Goal(f"{name}, cached", times["ours"], limit, "µs"))
    head = ["expression", "checked closure, µs", "Python's eval, compiled, µs", "ratio"]
    result.tables.append(Table("CPU per evaluation", head, rows))
    result.checked.append("the values of all expressions")
    return result


SCENARIO = Scenario("expressions", "Expressions", run, needs_bench_group=False)
