"""The order of values and records is MongoDB's."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.store.base import QueryRefused
from machina.store.ordering import RecordOrder, value_key
from tests.store.strategies import records, unhurried, values

ASCENDING: list[Any] = [
    None, -1.5, 0, 2, 2**53, "", "B", "a", "é", "\U0001f600", {}, {"a": 1}, {"b": 0}, {"a": "x"},
    [], [1], [1, 2], [2], b"z", b"aa", False, True, datetime(2020, 1, 1, tzinfo=UTC),
    datetime(2021, 1, 1, tzinfo=UTC),
]  # fmt: skip


def test_types_come_in_the_documented_order() -> None:
    shuffled = ASCENDING.copy()
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=value_key) == ASCENDING


@unhurried
@given(values, values)
def test_keys_are_comparable_and_equal_only_for_equal_values(one: Any, other: Any) -> None:
    first, second = value_key(one), value_key(other)
    assert (first < second) + (second < first) + (first == second) == 1


@unhurried
@given(st.lists(records, max_size=6), st.sampled_from((1, -1)), st.integers(0, 7))
def test_the_first_few_are_the_head_of_the_whole_order(
    found: list[dict[str, Any]], direction: Any, count: int
) -> None:
    numbered = [{**record, "_id": f"{i:02}"} for i, record in enumerate(found)]
    order = RecordOrder([("a", direction), ("d", 1)])
    whole = order.first(iter(numbered), None)
    assert order.first(iter(numbered), count) == whole[:count]
    assert sorted(r["_id"] for r in whole) == [r["_id"] for r in numbered]


def ids(sort: Any, *found: dict[str, Any]) -> list[str]:
    return [record["_id"] for record in RecordOrder(sort).first(found, None)]


def test_a_list_sorts_by_its_least_or_greatest_element() -> None:
    rows: list[dict[str, Any]] = [
        {"_id": "x", "a": [5, 1]},
        {"_id": "y", "a": 3},
        {"_id": "z", "a": []},
        {"_id": "n"},
    ]
    assert ids([("a", 1)], *rows) == ["z", "n", "x", "y"]
    assert ids([("a", -1)], *rows) == ["x", "y", "n", "z"]


def test_equal_records_come_by_id_in_the_direction_of_the_last_key() -> None:
    rows: list[dict[str, Any]] = [{"_id": "2", "a": 1}, {"_id": "1", "a": 1}, {"_id": "3", "a": 0}]
    assert ids([], *rows) == ["1", "2", "3"]
    assert ids([("a", 1)], *rows) == ["3", "1", "2"]
    assert ids([("a", -1)], *rows) == ["2", "1", "3"]
    assert ids([("a", 1), ("_id", -1)], *rows) == ["3", "2", "1"]


def test_paths_sort_through_objects() -> None:
    rows: list[dict[str, Any]] = [
        {"_id": "1", "v": {"d": 2}},
        {"_id": "2", "v": {"d": 1}},
        {"_id": "3", "v": [{"d": 0}]},
    ]
    assert ids([("v.d", 1)], *rows) == ["3", "2", "1"]
    assert ids([("v.d", 1)], *rows, {"_id": "4", "v": [1]}) == ["4", "3", "2", "1"]


@pytest.mark.parametrize(
    "sort",
    [
        [("a", 0)], [("a", "asc")], [("a", True)], [("$natural", 1)], [("a..b", 1)], [(1, 1)],
        [("a", 1)] * 33,
    ],
)  # fmt: skip
def test_what_cannot_be_sorted_by_is_refused(sort: Any) -> None:
    with pytest.raises(QueryRefused):
        RecordOrder(sort)
