"""From facts to a verdict: what is wrong, what never happened, and the report of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.chaos.books import judge_exits, judge_runs
from bench.chaos.figures import (
    api_stops,
    as_rows,
    gaps_by_fault,
    longest_gaps,
    sometimes,
    spread,
    timings,
)
from bench.chaos.oracle import Violation, judge
from bench.chaos.plan import Kind
from bench.chaos.seen import Fault, Watch

SHOWN: Final = 40
"""Violations that a report spells out; it counts all."""

NEEDED_BY_KIND: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.WORKER_KILL: ("attempt superseded", "worker killed mid-stream"),
    Kind.WORKER_TERM: ("attempt superseded",),
    Kind.WORKER_PAUSE: ("attempt superseded",),
    Kind.API_KILL: ("api killed with open streams", "resume on another instance"),
    Kind.API_TERM: ("resume on another instance",),
    Kind.REDIS_KILL: ("redis hit while events flowed",),
    Kind.REDIS_FREEZE: ("redis hit while events flowed",),
}
"""What must have been seen for a fault of this kind to have tested anything."""


@dataclass(slots=True)
class Verdict:
    """The outcome of one command."""

    title: str
    options: Mapping[str, Any]
    violations: list[Violation] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Faults that never fired and things that never happened: a green run would mean nothing."""
    totals: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    figures: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    limits: dict[str, tuple[float | None, float]] = field(default_factory=dict)
    """Goals: what was measured, and the most it may be. Reported; they do not decide."""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong and everything happened that had to."""
        return not self.violations and not self.missing

    def line(self) -> str:
        """The verdict in one line."""
        word = "PASS" if self.passed else "FAIL"
        options = " ".join(f"{name}={value}" for name, value in self.options.items())
        totals = " ".join(f"{name}={value}" for name, value in self.totals.items())
        return f"chaos {word} {self.title} {options} {totals} violations={len(self.violations)}" + (
            f" missing={len(self.missing)}" if self.missing else ""
        )

    def write(self, directory: Path) -> Path:
        """Writes `report.json` and `report.md`; returns the latter."""
        directory.mkdir(parents=True, exist_ok=True)
        plain = asdict(self) | {"passed": self.passed, "line": self.line()}
        plain["violations"] = plain["violations"][:SHOWN]
        plain["violations_by_kind"] = self.by_kind()
        (directory / "report.json").write_text(json.dumps(plain, indent=1, default=str) + "\n")
        path = directory / "report.md"
        path.write_text("\n".join(self._markdown()) + "\n")
        return path

    def by_kind(self) -> dict[str, int]:
        """How often each promise was broken."""
        return dict(Counter(violation.wrong for violation in self.violations))

    def _markdown(self) -> Iterable[str]:
        yield f"# {'PASS' if self.passed else 'FAIL'}: {self.title}\n\n`{self.line()}`\n"
        for name in self.missing:
            yield f"- never happened: {name}"
        for kind, count in self.by_kind().items():
            yield f"- {count} x `{kind}`"
        for violation in self.violations[:SHOWN]:
            yield f"  - `{violation.wrong}` run {violation.run_id}: `{violation.detail}`"
        yield from _table("Figures (seconds)", ("count", "p50", "p99", "max"), self.figures)
        yield "\n## Goals\n\n| goal | measured | at most |\n| --- | --- | --- |"
        for name, (measured, most) in self.limits.items():
            shown = "-" if measured is None else f"{measured:g}"
            yield f"| {name} | {shown} | {most:g} |"
        yield "\n## How often\n\n| what | times |\n| --- | --- |"
        for name, count in (self.totals | self.counters).items():
            yield f"| {name} | {count} |"
        for name, value in self.details.items():
            yield f"\n## {name}\n"
            rows = value if isinstance(value, list) else [value]
            yield from (f"- `{json.dumps(row, default=str)}`" for row in rows)


def _table(
    title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any] | None]
) -> Iterable[str]:
    yield f"\n## {title}\n\n| what | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}"
    for name, row in rows.items():
        if row is not None:
            yield f"| {name} | {' | '.join(str(row[column]) for column in columns)} |"


def convict(
    verdict: Verdict,
    watches: Sequence[Watch],
    faults: Sequence[Fault],
    rows: Sequence[dict[str, Any]] | None,
    leaked: Sequence[Violation],
) -> None:
    """Fills a verdict from everything that was seen."""
    for watch in watches:
        verdict.violations += judge(watch, faults)
    verdict.violations += [*judge_runs(watches, rows), *judge_exits(faults), *leaked]
    verdict.counters |= sometimes(watches, faults)
    verdict.missing += never_happened(faults, verdict.counters)
    verdict.totals |= {
        "faults": sum(fault.at is not None for fault in faults),
        "runs": len(watches),
        "events": sum(len(watch.lines) for watch in watches),
        "connections": sum(len(watch.connections) for watch in watches),
        "resumes": sum(
            connection.status == 200 and connection.how != "start"
            for watch in watches
            for connection in watch.connections
        ),
    }
    gaps = {
        f"{kind} to next event": spread(of) for kind, of in gaps_by_fault(watches, faults).items()
    }
    verdict.figures |= as_rows(gaps | timings(watches))
    verdict.limits |= _limits(verdict.figures, faults)
    verdict.details |= {
        "Faults": [_row(fault) for fault in faults],
        "API stops": api_stops(watches, faults),
        "Answers": _answers(watches),
        "Longest gaps": longest_gaps(watches, faults),
    }


def never_happened(faults: Sequence[Fault], counters: Mapping[str, int]) -> list[str]:
    """Faults that were not fired, and the effects that those which were must have had."""
    missing = [
        f"fault {fault.plan.number}, {fault.plan.kind}: {fault.note or 'not fired'}"
        for fault in faults
        if fault.at is None
    ]
    needed = {name for fault in faults for name in NEEDED_BY_KIND.get(fault.plan.kind, ())}
    return missing + sorted(name for name in needed if not counters.get(name))


def _limits(
    figures: Mapping[str, Mapping[str, Any] | None], faults: Sequence[Fault]
) -> dict[str, tuple[float | None, float]]:
    def of(name: str, column: str) -> float | None:
        row = figures.get(name)
        return None if row is None else float(row[column])

    exits = [fault.exit_seconds for fault in faults if fault.plan.kind is Kind.API_TERM]
    return {
        "worker-kill to next event, p50": (of("worker-kill to next event", "p50"), 4.0),
        "worker-kill to next event, p99": (of("worker-kill to next event", "p99"), 6.0),
        "worker-kill to next event, max": (of("worker-kill to next event", "max"), 8.0),
        "worker-term to next event, p99": (of("worker-term to next event", "p99"), 3.0),
        "api-kill to next event, p99": (of("api-kill to next event", "p99"), 1.5),
        "api-term to exit, max": (max((e for e in exits if e is not None), default=None), 5.0),
        "cancel to done, p99": (of("cancel to done", "p99"), 2.0),
        "done to closed body, max": (of("done to closed body", "max"), 1.0),
    }


def _row(fault: Fault) -> dict[str, Any]:
    return {
        "number": fault.plan.number,
        "kind": str(fault.plan.kind),
        "due": round(fault.plan.due, 2),
        "fired": fault.at is not None,
        "seconds": fault.plan.seconds or None,
        "streams": fault.streams,
        "exit": [fault.exit_code, fault.exit_seconds] if fault.exit_seconds is not None else None,
        "note": fault.note,
    }


def _answers(watches: Sequence[Watch]) -> dict[str, int]:
    """How requests for streams were answered, and how those answered 200 ended."""
    answers = Counter(
        f"{connection.status or 'none'} {connection.ending}"
        for watch in watches
        for connection in watch.connections
    )
    return dict(sorted(answers.items()))
