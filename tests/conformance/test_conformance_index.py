"""The index of the suite names every case, and every case has a line of its own."""

from __future__ import annotations

from collections import Counter

from tests.conformance.index import BEGIN, README, all_cases, index_of


def test_the_index_names_exactly_the_cases_there_are() -> None:
    _, marked, index = README.read_text(encoding="utf-8").partition(BEGIN)
    assert marked
    assert index == index_of(all_cases()), "run `uv run python -m tests.conformance.index`"


def test_no_two_cases_claim_the_same_line() -> None:
    counted = Counter(case.spec for case in all_cases())
    assert [spec for spec, number in counted.items() if number > 1] == []
