"""A short seeded chaos run on real processes, after the oracle has been put to its own test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]


def test_nothing_is_lost_repeated_or_reordered_when_every_part_is_hit_once(tmp_path: Path) -> None:
    report = tmp_path / "chaos"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.chaos", "--seed", "7", "--streams", "20"),
            *("--profile", "worker-kill+api-kill+redis-kill+api-term", "--faults", "4"),
            *("--seconds", "20", "--longest", "6", "--report", str(report), "--keep"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((report / "report.json").read_text())
    assert verdict["passed"]
    assert verdict["totals"]["faults"] == 4
    assert verdict["counters"]["attempt superseded"] > 0
    assert verdict["counters"]["resume on another instance"] > 0


def test_a_profile_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.chaos", "--profile", "mongo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "mongo" in done.stderr
