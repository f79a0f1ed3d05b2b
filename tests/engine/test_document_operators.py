"""Operators count where a template wrote them; those that arrive inside data are values."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.documenting import Desk, document

HOSTILE: list[Any] = [
    {"$ne": None},
    {"$gt": ""},
    {"$exists": True},
    {"$in": ["secret"]},
    {"$regex": "^"},
    {"$not": {"$eq": 1}},
    {"$where": "1"},
    {"$or": [{"a": 1}]},
]


async def given(desk: Desk) -> None:
    for value in ("secret", {"$ne": None}, {"k": {"$gt": ""}}):
        await desk.put("n", value)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize(
    "filters",
    [
        {"value": "$.get('x')"},
        {"value": "$.(x)"},
        {"value": "context.get('x')"},
        {"value": "{**$.get('x')}"},
        {"value": "dict($.get('x'))"},
        {"value": "{k: v for k, v in $.get('x').items()}"},
        {"value": "$.get('x') if True else {'$ne': 1}"},
        {"value": "$.get('nothing') or $.get('x')"},
        {"value": "{'$eq': $.get('x')}"},
        {"metadata": {"k": "$.get('x')"}, "value": "$.get('x')"},
        {"$or": "[{'value': $.get('x')}]"},
        {"$or": [{"value": "$.get('x')"}]},
        "{'value': $.get('x')}",
    ],
)
async def test_an_operator_inside_data_is_compared_by_equality(
    desk: Desk, filters: Any, hostile: Any
) -> None:
    await given(desk)
    found = await desk.search(filters, x=hostile)
    assert found == ([{"$ne": None}] if hostile == {"$ne": None} and _plain(filters) else [])


def _plain(filters: Any) -> bool:
    return not (isinstance(filters, dict) and "metadata" in filters)


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_an_input_that_is_data_is_no_operator(desk: Desk, hostile: Any) -> None:
    await given(desk)
    assert await desk.do(document("search", inputs={"value": "$.get('x')", "name": "'n'"}),
                         x={"$gt": ""}) == []  # fmt: skip
    task = document(
        "search", inputs={"x": "$.get('x')", "y": "{'$in': [1]}"}, filters={"name": "$.get('x')"}
    )
    assert await desk.do(task, x=hostile) == []


@pytest.mark.parametrize(
    "filters",
    [
        {"value": "{'$ne': 1, **$.get('x')}"},
        {"value": {"$not": "$.get('x')"}},
        {"value": "{'$not': $.get('x')}"},
        {"value": "{'$elemMatch': $.get('x')}"},
        {"value": "{'$all': [{**$.get('x')}]}"},
        {"value": "{'$in': [$.get('x')]}"},
        {"$or": "[$.get('x')]"},
        "$.get('x')",
        "{**$.get('x')}",
        {"metadata": "{'a': 1, **$.get('x')}"},
    ],
)
async def test_data_cannot_add_operators_where_a_template_wrote_some(
    desk: Desk, filters: Any
) -> None:
    await given(desk)
    assert "task_failed" in await desk.fail(document("search", filters=filters), x={"$gt": ""})


@pytest.mark.parametrize(
    "filters",
    [
        {"value": "{'$in': ['secret']} if $.get('x') else $.get('x')"},
        {"value": "$.get('nothing') or {'$in': ['secret']}"},
        {"value": "{**{'$in': ['secret']}}"},
        {"value": "{k: v for k, v in {'$in': ['secret']}.items()}"},
        {"value": "[{'$in': ['secret']}][0]"},
        {"value": "(lambda: {'$in': ['secret']})()"},
        {"$or": "[{'value': v} for v in [{'$in': ['secret']}]]"},
    ],
)
async def test_an_authored_operator_counts_whatever_expression_it_went_through(
    desk: Desk, filters: Any
) -> None:
    await given(desk)
    assert await desk.search(filters, x=1) == ["secret"]


async def test_a_hostile_value_beside_an_authored_operator_stays_a_value(desk: Desk) -> None:
    await given(desk)
    found = await desk.search({"value": "{'$ne': $.get('x')}"}, x={"$ne": None})
    assert found == ["secret", {"k": {"$gt": ""}}]
    assert await desk.search({"value.k": "$.get('x')"}, x={"$gt": ""}) == [{"k": {"$gt": ""}}]


async def test_texts_that_look_like_operators_come_back_unchanged(desk: Desk) -> None:
    await desk.put("n", "the '$in': operator")
    assert await desk.search({"value": "\"the '$in': operator\""}) == ["the '$in': operator"]
    assert await desk.search({"value": "'the \\'$in\\': operator'"}) == ["the '$in': operator"]


async def test_an_update_cannot_be_aimed_by_an_operator_inside_data(desk: Desk) -> None:
    await desk.put("victim", {"v": 1}, metadata={"owner": "a"})
    task = document(
        "update",
        filters={"metadata.owner": "$.get('x')", "name": "'victim'"},
        documents={"victim": "{'v': 2}"},
    )
    await desk.do(task, x={"$ne": "z"})
    rows = await desk.stored("victim")
    assert [row["value"] for row in rows] == [{"v": 1}, {"v": 2}]
    task = document("update", metadata={"owner": "$.get('x')"}, documents={"victim": "{'v': 3}"})
    await desk.do(task, x={"$exists": True})
    rows = await desk.stored("victim")
    assert [row["value"] for row in rows] == [{"v": 1}, {"v": 2}, {"v": 3}]


async def test_a_bulk_update_cannot_be_aimed_by_an_operator_inside_data(desk: Desk) -> None:
    await desk.put("victim", {"v": 1}, metadata={"owner": "a"})
    for count in (1, 20):
        items = [{"v": 2, "metadata": {"owner": {"$exists": True}}, "n": n} for n in range(count)]
        task = document(
            "bulk-update", document_name="victim", documents={"items": "$.get('items')"}
        )
        await desk.do(task, items=items)
    assert [row["value"]["v"] for row in await desk.stored("victim")] == [1, 2]
