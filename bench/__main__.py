"""The command: `uv run --frozen --group bench python -m bench`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.catalogue import SCENARIOS
from bench.page.page import write_page
from bench.processes import ROOT
from bench.records import Record, read_records, write_records
from bench.session import Run, take

RECORDS: Final = ROOT / "bench" / "results.json"


def main() -> int:
    """Runs scenarios and writes the report; 0 when all of them ran and their checks held."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way all servers are ended
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = [one for one in SCENARIOS if not arguments.only or one.name in arguments.only]
    known = {} if arguments.quick else {one.name: one for one in read_records(RECORDS)}
    failed = False
    with tempfile.TemporaryDirectory(prefix="machina-bench-") as directory:
        session = Run(Path(directory), quick=arguments.quick)
        for scenario in chosen:
            record = take(scenario, session)
            failed = failed or record.failure is not None
            _print(record, quick=arguments.quick)
            known[record.name] = record
            _write([known[one.name] for one in SCENARIOS if one.name in known], arguments)
    return 1 if failed else 0


def _write(records: Sequence[Record], arguments: argparse.Namespace) -> None:
    """After each scenario, so that an interrupted run keeps what it has."""
    out: Path | None = arguments.out
    if not arguments.quick:
        write_records(records, RECORDS)
        write_page(records, out or ROOT / "docs", plots=True)
    elif out is not None:
        write_records(records, out / "results.json")
        write_page(records, out, plots=False)


def _print(record: Record, *, quick: bool) -> None:
    print(f"\n== {record.name} ({record.seconds:.0f} s, load {record.load[0]} → {record.load[1]})")
    if record.failure is not None:
        print(f"   FAILED: {record.failure}", flush=True)
        return
    for goal in () if quick else record.result.goals:
        verb = "reached" if goal.is_reached else "missed"
        sign = "≤" if goal.at_most else "≥"
        print(f"   {verb}: {goal.what} {goal.value:.2f} {goal.unit} ({sign} {goal.limit:g})")
    for text in (*record.result.checked, *record.result.notes):
        print(f"   {text}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures the product beside references in the same run, checks every stream, "
        "and writes docs/performance.md and bench/results.json. Scenarios that are not run keep "
        "their last figures.",
    )
    names = [one.name for one in SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--quick", action="store_true", help="tiny loads: only to see that everything holds"
    )
    parser.add_argument(
        "--out", type=Path, help="directory of the page (docs/); with --quick the only place"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
