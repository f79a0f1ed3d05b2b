"""What of a query or change is left to which kind of server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from machina.store.mongo_plans import Plan, may_insert, plan_query, plan_update
from machina.store.mongo_values import Converter

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
FIELDS = ("project", "name")


def faithful(query: Any) -> Plan:
    return plan_query(query, FIELDS, faithful=True)


def lenient(query: Any) -> Plan:
    return plan_query(query, FIELDS, faithful=False)


@pytest.mark.parametrize(
    ("query", "filter"),
    [
        ({}, {}),
        ({"name": "a"}, {"name": {"$eq": "a"}}),
        ({"a": {"x.y": {"$ref": 1}}}, {"a": {"$eq": {"x%2Ey": {"%24ref": 1}}}}),
        ({"$and": [{}, {"a": 1}]}, {"a": {"$eq": 1}}),
        ({"a.$b": {"$gt": 1, "$lt": 2}}, {"a.%24b": {"$gt": 1, "$lt": 2}}),
        ({"a": {"$in": {1}}}, {"a": {"$in": [1]}}),
        ({"a": {"$nin": (1, None)}}, {"a": {"$nin": [1, None]}}),
        ({"a": {"$exists": 1}}, {"a": {"$exists": True}}),
        ({"a": {"$not": {"$size": 2}}}, {"a": {"$not": {"$size": 2}}}),
        ({"a": {"$elemMatch": {"$gt": 1}}}, {"a": {"$elemMatch": {"$gt": 1}}}),
        ({"a": {"$all": [1, {"b": 2}]}}, {"a": {"$all": [1, {"b": 2}]}}),
        ({"$nor": [{"a": 1}]}, {"$nor": [{"a": {"$eq": 1}}]}),
        ({"$or": [{"a": 1}, {"b": 2}]}, {"$or": [{"a": {"$eq": 1}}, {"b": {"$eq": 2}}]}),
        ({"$or": [{"a": 1}, {}]}, {}),
        ({"a": {"$regex": "^acme:"}}, {"a": {"$regex": "^acme:", "$options": ""}}),
        ({"a": {"$regex": "x y", "$options": "i"}}, {"a": {"$regex": "x y", "$options": "i"}}),
        ({"a": {"$gte": NOW.replace(tzinfo=None)}}, {"a": {"$gte": NOW}}),
    ],
)
def test_mongodb_is_left_alone_with_nearly_everything(query: Any, filter: Any) -> None:
    plan = faithful(query)
    assert plan.filter == filter
    assert plan.exact


@pytest.mark.parametrize(
    ("query", "filter"),
    [
        ({"name": "a", "b": {"$regex": "(a+)+"}}, {"name": {"$eq": "a"}}),
        ({"b": {"$regex": "a", "$options": "m"}}, {}),
        ({"b": {"$regex": "a.c", "$ne": "abc"}}, {"b": {"$ne": "abc"}}),
        ({"b": {"$not": {"$regex": "a.c"}}}, {}),
        ({"$nor": [{"a": 1, "b": {"$regex": "a.c"}}]}, {}),
        ({"$or": [{"a": 1, "b": {"$regex": "."}}, {"c": 2}]}, None),
        ({"$or": [{"b": {"$regex": "."}}, {"c": 2}]}, {}),
        ({"a": {"$elemMatch": {"n": 1}}}, {"a": {"$elemMatch": {"n": {"$eq": 1}}}}),
        ({"a": {"$not": {"$elemMatch": {"n": 1}}}}, {}),
        ({"a": {"$elemMatch": {"$regex": "."}}}, {}),
        ({"a": {"$all": [{"$elemMatch": {"n": 1}}]}}, None),
        ({"a": "\ud800"}, {}),
        ({"a": 2**63}, {}),
        ({"a": {"$in": [1, float("nan")]}}, {}),
        ({"a": {"b": [float("inf")]}}, {}),
        ({"a": {"\ud800": 1}}, {}),
    ],
)
def test_what_mongodb_would_read_otherwise_is_tested_here(query: Any, filter: Any) -> None:
    plan = faithful(query)
    assert not plan.exact
    if filter is not None:
        assert plan.filter == filter


@pytest.mark.parametrize(
    ("query", "filter", "exact"),
    [
        ({}, {}, True),
        ({"_id": "x"}, {"_id": "x"}, True),
        (
            {"project": "p", "$and": [{"name": {"$in": ["a", "b"]}}]},
            {"$and": [{"project": "p"}, {"name": {"$in": ["a", "b"]}}]},
            True,
        ),
        ({"project": "p", "a": "b"}, {"project": "p"}, False),
        ({"project": "p", "name": {"$gt": "a"}}, {"project": "p"}, False),
        ({"name": 5}, {}, False),
        ({"name": None}, {}, False),
        ({"name": "a\0b"}, {}, False),
        ({"name": {"$in": ["a", None]}}, {}, False),
        ({"$or": [{"name": "a"}]}, {}, False),
    ],
)
def test_a_lenient_server_is_asked_for_texts_in_indexed_fields_only(
    query: Any, filter: Any, exact: bool
) -> None:
    plan = lenient(query)
    assert (plan.filter, plan.exact) == (filter, exact)


def test_a_query_by_indexed_fields_is_known_as_one() -> None:
    assert faithful({"_id": "x", "$and": [{"name": {"$ne": 1}}]}).indexed
    assert not faithful({"name": "a", "value.n": 1}).indexed
    assert not faithful({"$or": [{"name": "a"}]}).indexed


@pytest.mark.parametrize(
    ("change", "update"),
    [
        ({}, {}),
        ({"$set": {}}, {}),
        ({"$set": {"a.x": {"$b": (1,)}}}, {"$set": {"a.x": {"%24b": [1]}}}),
        ({"$unset": {"name": 1}}, {"$unset": {"name": ""}}),
        ({"$set": {"name": "b"}}, {"$set": {"name": "b"}}),
        ({"$inc": {"n": 2}, "$max": {"m": NOW}}, {"$inc": {"n": 2}, "$max": {"m": NOW}}),
        ({"$push": {"l": {"a": 1}}}, {"$push": {"l": {"a": 1}}}),
        ({"$setOnInsert": {"_id": "x"}}, {"$setOnInsert": {"_id": "x"}}),
    ],
)
def test_a_change_is_the_servers_and_counts_the_version_up(change: Any, update: Any) -> None:
    counted = {**update, "$inc": {"%v": 1, **update.get("$inc", {})}}
    assert plan_update("agents", change, Converter(has_bytes=True)) == counted


@pytest.mark.parametrize(
    "change",
    [
        {"$set": {"_id": "x"}},
        {"$setOnInsert": {"_id.a": "x"}},
        {"$set": {"list.5": 1}},
        {"$set": {"name": ["a"]}},
        {"$set": {"name": 5}},
        {"$set": {"name.a": 5}},
        {"$inc": {"name": 1}},
        {"$push": {"project": 1}},
        {"$inc": {"n": True}},
        {"$inc": {"n": "1"}},
        {"$inc": {"n": 2**63}},
        {"$push": {"l": {"$each": [1]}}},
        {"$set": {"a": object()}},
    ],
)
def test_a_change_that_must_be_refused_or_differs_is_made_here(change: Any) -> None:
    assert plan_update("agents", change, Converter(has_bytes=True)) is None


def test_an_upsert_is_the_servers_if_it_inserts_the_same() -> None:
    record = {"_id": "x", "project": "p"}
    assert may_insert("agents", {"project": "p"}, record)
    assert not may_insert("agents", {"project": {"$in": ["p"]}}, record)
    assert not may_insert("agents", {"$or": [{"project": "p"}]}, record)
    assert not may_insert("agents", {"project": "p"}, {"project": "p"})
    assert not may_insert("agents", {"project": "p"}, record | {"name": []})
