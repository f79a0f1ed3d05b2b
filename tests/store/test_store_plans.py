"""What SQL answers is what the pure test of a query answers, for any records and queries."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machina.store import scans
from machina.store.base import QueryRefused
from machina.store.matching import compile_query
from machina.store.ordering import RecordOrder
from machina.store.plans import plan_query
from machina.store.scans import Scan
from machina.store.tables import Table
from machina.store.values import decode, encode
from tests.store.strategies import conditions, singles, values

FIELDS = ("project", "name")
names = st.sampled_from((*FIELDS, "value", "value.b"))
stored = st.lists(
    st.fixed_dictionaries({}, optional={"project": singles, "name": singles, "value": values}),
    max_size=6,
)
queries: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(names, st.one_of(conditions, singles), max_size=3),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: {"$or": parts}),
    ),
    max_leaves=3,
)
sorts = st.lists(
    st.tuples(st.sampled_from((*FIELDS, "value", "_id")), st.sampled_from((1, -1))), max_size=2
)


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    opened.text_factory = bytes
    Table("documents").create(opened)
    yield opened
    opened.close()


def fill(connection: sqlite3.Connection, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = Table("documents")
    connection.execute(f"DELETE FROM {table.name}")  # noqa: S608  # a declared name
    found = []
    for number, record in enumerate(records):
        table.insert(connection, {"_id": f"{number}", **record})
        found.append(decode(encode({"_id": f"{number}", **record}).encode()))
    return found


@settings(deadline=None, max_examples=150)
@given(stored, queries, sorts, st.integers(0, 2), st.one_of(st.none(), st.integers(0, 4)))
def test_a_scan_finds_and_counts_what_the_query_means(
    connection: sqlite3.Connection,
    records: list[dict[str, Any]],
    query: dict[str, Any],
    sort: list[Any],
    skip: int,
    limit: int | None,
) -> None:
    matching = [r for r in fill(connection, records) if compile_query(query)(r)]
    expected = RecordOrder(sort).first(matching, None)[skip:][:limit]
    scan = Scan(Table("documents"), query, sort)
    assert scan.find(connection, skip, limit) == expected
    assert scan.count(connection) == len(matching)


@settings(deadline=None)
@given(stored, queries)
def test_each_visits_every_match_once(
    connection: sqlite3.Connection, records: list[dict[str, Any]], query: dict[str, Any]
) -> None:
    matching = [r for r in fill(connection, records) if compile_query(query)(r)]
    visited: list[dict[str, Any]] = []
    assert Scan(Table("documents"), query).each(connection, visited.append) == len(matching)
    assert visited == matching


SAMPLES: list[Any] = [
    None, False, True, -1.5, -1, 0, 0.5, 1, 2**53, 2**53 + 1, 2.0**53, 1e300, 2**63 - 1, "", "\0",
    "a", "ab", "s", "t", "t0", "u", "u2026", "z", "z\U0001f600", "é", "\uffff",
    datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, microsecond=1000, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC),
]  # fmt: skip


@pytest.mark.parametrize("name", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
def test_every_pair_of_values_compares_alike(connection: sqlite3.Connection, name: str) -> None:
    found = fill(connection, [{"name": value} for value in SAMPLES])
    for operand in (*SAMPLES, [], {}, b"x", float("inf"), float("nan"), -(2**80)):
        if isinstance(operand, list | dict) and name not in ("$eq", "$ne"):
            continue
        query = {"name": {name: operand}}
        expected = [record["_id"] for record in found if compile_query(query)(record)]
        scan = Scan(Table("documents"), query)
        assert sorted(r["_id"] for r in scan.find(connection, 0, None)) == sorted(expected), query
        assert scan.count(connection) == len(expected), query


@pytest.mark.parametrize(
    ("query", "exact"),
    [
        ({}, True),
        ({"_id": "x"}, True),
        ({"_id": "x", "name": "a"}, False),
        ({"name": "a", "project": {"$in": ["p", None]}}, True),
        ({"name": {"$gt": 1, "$ne": 5}}, True),
        ({"$and": [{"name": "a"}, {"_id": {"$nin": ["x"]}}]}, True),
        ({"name": {"$exists": True}}, False),
        ({"name.first": "a"}, False),
        ({"name": "a", "value": 1}, False),
        ({"$or": [{"name": "a"}, {"project": "p", "_id": {"$gt": "x"}}]}, True),
        ({"$or": [{"name": "a"}, {"project": "p", "value": 1}]}, False),
        ({"$or": [{"name": "a"}, {}]}, False),
        ({"$nor": [{"name": "a"}]}, False),
        ({"name": 2**70}, False),
        ({"name": "\ud800"}, False),
        ({"name": {"$gt": float("nan"), "$nin": [{"a": 1}]}}, True),
    ],
)
def test_a_plan_knows_whether_it_is_exact(query: dict[str, Any], exact: bool) -> None:
    assert plan_query(query, FIELDS).exact is exact


def test_a_lone_surrogate_does_not_find_its_repaired_form(connection: sqlite3.Connection) -> None:
    fill(connection, [{"name": "a\ud800"}])
    assert Scan(Table("documents"), {"name": "a\ud800"}).count(connection) == 0
    assert Scan(Table("documents"), {"name": "a\ufffd"}).count(connection) == 1


def test_long_lists_of_values_are_planned_within_sqlites_bounds(
    connection: sqlite3.Connection,
) -> None:
    fill(connection, [{"name": 7}, {"name": 70_000}])
    many = {"$in": [*range(10_000)]}
    query = {"$and": [{"name": many}, {"project": {"$nin": [*range(9_000)]}}, {"name": many}]}
    assert [r["_id"] for r in Scan(Table("documents"), query).find(connection, 0, None)] == ["0"]


def test_an_indexed_query_uses_its_index(connection: sqlite3.Connection) -> None:
    table = Table("documents")
    plan = plan_query({"project": "p", "name": "a"}, table.fields)
    rows = connection.execute(
        f"EXPLAIN QUERY PLAN SELECT doc FROM {table.name} WHERE {plan.where}",  # noqa: S608  # same
        plan.parameters,
    ).fetchall()
    assert b"project_name" in rows[0][3]


def test_pages_go_on_until_the_end(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "_PAGE", 2)
    fill(connection, [{"value": number} for number in range(5)])
    visited: list[dict[str, Any]] = []
    assert Scan(Table("documents"), {"value": {"$ne": 1}}).each(connection, visited.append) == 4
    assert [record["value"] for record in visited] == [0, 2, 3, 4]


def test_a_query_that_takes_too_long_is_refused(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "MAX_SCAN_SECONDS", 0.0)
    fill(connection, [{"value": number} for number in range(100)])
    assert time.thread_time() > 0
    with pytest.raises(QueryRefused, match="looked at 64 records"):
        Scan(Table("documents"), {"value": -1}).find(connection, 0, 10)
    assert Scan(Table("documents"), {"project": None}).count(connection) == 100
