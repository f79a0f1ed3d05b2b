"""Queries of callers: renamed paths, dates as text, pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from machina.store import Store
from machina.store.base import QueryRefused
from machina.store.filters import find_page, parse_date, rename_sort, rewrite_query, scoped

DATE = datetime(2026, 1, 31, 8, tzinfo=UTC)
MAIL = "Sat, 31 Jan 2026 08:00:00 GMT"


def rename(path: str) -> str:
    return {"document_id": "_id", "x": "body.x"}.get(path, path)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"document_id": "1", "a": 1}, {"_id": "1", "a": 1}),
        ({"$or": [{"$and": [{"x": 2}]}]}, {"$or": [{"$and": [{"body.x": 2}]}]}),
        ({"x": {"$elemMatch": {"x": 1}}}, {"body.x": {"$elemMatch": {"x": 1}}}),
        ({"_id": "1", "document_id": "2"}, {"$and": [{"_id": "1"}, {"_id": "2"}]}),
        ({"created": "2026-01-31T08:00:00Z"}, {"created": DATE}),
        ({"created": {"$gte": "2026-01-31T10:00:00+02:00"}}, {"created": {"$gte": DATE}}),
        ({"created": {"$in": [MAIL, None]}}, {"created": {"$in": [DATE, None]}}),
        ({"created": {"$not": {"$lt": "2026-01-31 08:00"}}}, {"created": {"$not": {"$lt": DATE}}}),
        ({"created": {"$exists": True}}, {"created": {"$exists": True}}),
        ({"created": {"$regex": "x"}}, {"created": {"$regex": "x"}}),
        ({"value": "2026-01-31"}, {"value": "2026-01-31"}),
        ({"created": DATE}, {"created": DATE}),
    ],
)  # fmt: skip
def test_a_query_is_rewritten(query: Any, expected: Any) -> None:
    assert rewrite_query(query, rename=rename, dates=("created",)) == expected


def test_a_refusal_speaks_of_the_callers_own_fields() -> None:
    with pytest.raises(QueryRefused) as refused:
        rewrite_query({"x": {"$where": 1}}, rename=rename)
    assert refused.value.field == "x.$where"
    with pytest.raises(QueryRefused) as refused:
        rewrite_query({"created": {"$gt": "yesterday"}}, dates=("created",))
    assert refused.value.field == "created"
    assert "2026-01-31T08:00:00Z" in refused.value.message


@pytest.mark.parametrize("text", ["", "today", "2026-13-01", "1", "Sat, 99 Jan 2026 08:00:00 GMT"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(QueryRefused):
        parse_date(text, "created")


def test_a_project_cannot_be_left_by_a_query() -> None:
    assert scoped("p", {"a": 1}) == {"a": 1, "project": "p"}
    assert scoped("p", {"project": "q"}) == {"project": "p", "$and": [{"project": "q"}]}


def test_a_sort_is_renamed() -> None:
    assert rename_sort([("x", -1), ("a", 1)], rename) == [("body.x", -1), ("a", 1)]
    with pytest.raises(QueryRefused):
        rename_sort([(1, 1)], rename)  # type: ignore[list-item]  # what JSON may bring


async def test_a_page_knows_how_many_match_in_all(store: Store) -> None:
    documents = store.backend.collection("documents")
    for number in range(5):
        await documents.insert({"_id": f"{number}", "n": number})

    async def page(skip: int, limit: int) -> tuple[list[str], int]:
        query = {"n": {"$gte": 1}}
        rows, total = await find_page(documents, query, sort=[("_id", 1)], skip=skip, limit=limit)
        return [row["_id"] for row in rows], total

    assert await page(0, 2) == (["1", "2"], 4)
    assert await page(2, 2) == (["3", "4"], 4)
    assert await page(3, 2) == (["4"], 4)
    assert await page(9, 2) == ([], 4)
    assert await page(0, 9) == (["1", "2", "3", "4"], 4)
    assert await page(0, 0) == ([], 4)
