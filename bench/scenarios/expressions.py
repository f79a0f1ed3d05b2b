"""Expressions, compiled and cached, against the same text in Python's own `eval`."""

from __future__ import annotations

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
        plain = compile(text.replace("$", "state"), "<bench>", "eval")
        times = interleave(
            {
                "ours": lambda text=text: evaluate(text, scope),
                "python": lambda plain=plain: eval(plain, {"state": STATE}),  # noqa: S307  # ours
            },
            1 if session.quick else ROUNDS,
        )
        ratio = times["ours"] / times["python"]
        rows.append([f"`{text}`", round(times["ours"], 2), round(times["python"], 2), ratio])
        if limit is not None:
            result.goals.append(Goal(f"{name}, cached", times["ours"], limit, "µs"))
    rows = [[*row[:3], f"{row[3]:.1f}×"] for row in rows]
    head = ["expression", "checked closure, µs", "Python's eval, compiled, µs", "ratio"]
    result.tables.append(Table("CPU per evaluation", head, rows))
    result.checked.append("the values of all expressions")
    return result


SCENARIO = Scenario("expressions", "Expressions", run, needs_bench_group=False)
