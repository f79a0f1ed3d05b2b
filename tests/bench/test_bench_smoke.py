"""The bench runs and its checks hold, without the packages of its own group; nothing is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.client.connection import OK
from bench.client.verdict import Seen, judge
from bench.plan import Script
from bench.reference.answer import lines
from machina.connectors.llm.script import parse_script

ROOT = Path(__file__).parents[2]
SCENARIOS = ("expressions", "first-event")
WORDS = Script(tokens=3)


@pytest.mark.journey
@pytest.mark.timeout(120)
def test_two_small_scenarios_run_and_write_a_page_when_asked_to_be_quick(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--only", *SCENARIOS]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads((tmp_path / "results.json").read_text())
    assert sorted(record["name"] for record in records) == sorted(SCENARIOS)
    assert all(record["failure"] is None and record["result"]["checked"] for record in records)
    page = (tmp_path / "performance.md").read_text()
    assert all(f"## {record['title']}" in page for record in records)


class Answer:
    """An answer of the reference as a client keeps it, to be spoilt."""

    def __init__(self) -> None:
        self.status = OK
        self.complete = True
        script = parse_script(WORDS.directive)
        self.pieces = [(at, line) for at, (_, line) in enumerate(lines(script))]

    def judged(self) -> Seen:
        return judge(self, WORDS, stamped=False)


def test_a_whole_answer_is_not_complained_of() -> None:
    assert Answer().judged().complaints == []


def test_an_answer_is_judged_alike_when_it_comes_in_other_pieces() -> None:
    answer = Answer()
    whole = b"".join(data for _, data in answer.pieces)
    answer.pieces = [(at, whole[at : at + 7]) for at in range(0, len(whole), 7)]
    assert answer.judged().complaints == []


@pytest.mark.parametrize("index", range(7))
def test_a_lost_event_is_complained_of(index: int) -> None:
    answer = Answer()
    del answer.pieces[index]
    assert answer.judged().complaints


@pytest.mark.parametrize("index", range(7))
def test_a_repeated_event_is_complained_of(index: int) -> None:
    answer = Answer()
    answer.pieces.insert(index, answer.pieces[index])
    assert answer.judged().complaints


def test_events_out_of_order_are_complained_of() -> None:
    answer = Answer()
    answer.pieces[2], answer.pieces[3] = answer.pieces[3], answer.pieces[2]
    assert answer.judged().complaints


def test_another_word_is_complained_of() -> None:
    answer = Answer()
    at, line = answer.pieces[3]
    answer.pieces[3] = (at, line.replace(b"tok-1", b"tok-7"))
    assert answer.judged().complaints


def test_a_refusal_is_complained_of() -> None:
    answer = Answer()
    answer.status = 429
    assert answer.judged().complaints


def test_a_stream_that_was_cut_is_complained_of() -> None:
    answer = Answer()
    answer.complete = False
    assert answer.judged().complaints


def test_an_end_within_a_line_is_complained_of() -> None:
    answer = Answer()
    at, line = answer.pieces[-1]
    answer.pieces[-1] = (at, line[:-9])
    assert answer.judged().complaints
