"""Judges the deployment as a whole: its list of runs, and how its processes ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.chaos.oracle import Violation, Wrong
from bench.chaos.plan import Kind
from bench.chaos.seen import Fault, How, Watch


def judge_runs(
    watches: Sequence[Watch], rows: Sequence[dict[str, Any]] | None
) -> Iterator[Violation]:
    """The deployment's list of runs holds what was asked for, once, and else only refusals.

    A start that is answered 503 may leave the record of the run it refused, closed as failed.
    """
    if rows is None:
        return
    wanted = {watch.run_id for watch in watches}
    excused = sum(
        connection.how is How.START and connection.status != 200
        for watch in watches
        for connection in watch.connections
    )
    strays = [row for row in rows if row["_id"] not in wanted]
    for row in strays:
        if row["status"] != "failed":
            yield Violation(Wrong.STRAY_RUN, str(row["_id"]), f"nobody watched it: {row['status']}")
    if len(strays) > excused:
        yield Violation(Wrong.STRAY_RUN, "", f"{len(strays)} strays, {excused} refused starts")
    for run_id in sorted(wanted - {row["_id"] for row in rows} - {""}):
        yield Violation(Wrong.STRAY_RUN, run_id, "it is not in the list of runs")


def judge_exits(faults: Sequence[Fault]) -> Iterator[Violation]:
    """Whoever is asked to stop does so and says that it went well."""
    for fault in faults:
        if fault.exit_code not in (None, 0) and fault.plan.kind in (
            Kind.API_TERM,
            Kind.WORKER_TERM,
        ):
            name = f"{fault.plan.kind} {fault.plan.number}"
            yield Violation(Wrong.BAD_EXIT, name, f"exit code {fault.exit_code}")
