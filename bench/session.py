"""Runs one scenario after the other, each in directories of its own."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import describe, load_average
from bench.processes import ROOT
from bench.records import Record
from bench.result import Result, Scenario


class Run:
    """One call of the command; what scenarios see as their session."""

    def __init__(self, directory: Path, *, quick: bool) -> None:
        self.quick = quick
        self._directory = directory
        self._homes = 0

    def home(self, name: str) -> Path:
        """A new, empty directory."""
        self._homes += 1
        path = self._directory / f"{self._homes}-{name}"
        path.mkdir()
        return path

    def say(self, text: str) -> None:
        """Tells whoever waits how far it is."""
        print(f"  {text}", file=sys.stderr, flush=True)


def take(scenario: Scenario, session: Run) -> Record:
    """Runs a scenario; what it raises is kept, so that the others still run."""
    print(f"{scenario.name}:", file=sys.stderr, flush=True)
    began, before = time.monotonic(), load_average()
    result, failure = Result(), None
    try:
        result = scenario.run(session)
    except Exception as error:  # noqa: BLE001  # the report names it and the command exits with 1
        traceback.print_exc()
        failure = f"{type(error).__name__}: {error}"
    return Record(
        name=scenario.name,
        title=scenario.title,
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        seconds=round(time.monotonic() - began, 1),
        load=(before, load_average()),
        revision=_revision(),
        machine=describe(),
        result=result,
        failure=failure,
    )


def _revision() -> str:
    """The commit that was measured, marked where the product's files differ from it."""
    commit = _git("rev-parse", "--short=12", "HEAD").stdout.strip()
    if not commit:
        return "unknown"
    return (
        f"{commit}-changed"
        if _git("diff", "--quiet", "HEAD", "--", "machina").returncode
        else commit
    )


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "--no-optional-locks", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
