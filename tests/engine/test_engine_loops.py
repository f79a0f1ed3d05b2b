from __future__ import annotations

import asyncio
from typing import Any

import pytest

from machina.engine.loops import (
    MAX_ITEMS,
    PARALLEL,
    Width,
    merge_outputs,
    read_items,
    run_items,
)
from machina.errors import BudgetExceeded, TaskFailed


@pytest.mark.parametrize(
    ("value", "items"), [(None, []), ([], []), ([1, None], [1, None]), ((1,), [1]), ({7}, [7])]
)
def test_items_are_read_from_lists_and_null(value: Any, items: list[Any]) -> None:
    assert read_items(value, "task 't'") == items


@pytest.mark.parametrize("value", ["abc", {"a": 1}, 7, True])
def test_items_are_refused_when_the_value_is_no_list(value: Any) -> None:
    with pytest.raises(TaskFailed, match="needs a list"):
        read_items(value, "task 't'")


def test_items_are_refused_when_there_are_too_many() -> None:
    with pytest.raises(BudgetExceeded, match=str(MAX_ITEMS)) as refused:
        read_items([0] * (MAX_ITEMS + 1), "task 't'")
    assert refused.value.code == "sandbox_limit"


@pytest.mark.parametrize("concurrent", [False, True])
async def test_results_come_in_the_order_of_the_items(concurrent: bool) -> None:
    async def one(index: int, item: int) -> int:
        for _ in range(item):
            await asyncio.sleep(0)
        return index

    assert await run_items([5, 3, 1, 0], one, Width() if concurrent else None) == [0, 1, 2, 3]
    assert await run_items([], one, Width() if concurrent else None) == []


async def test_a_concurrent_loop_is_bounded() -> None:
    running = most = 0

    async def one(_: int, __: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await run_items(range(100), one, Width())
    assert most == PARALLEL


async def test_the_foremost_failure_is_raised_when_several_iterations_fail() -> None:
    async def one(index: int, _: int) -> None:
        raise TaskFailed(f"item {index}")

    with pytest.raises(TaskFailed, match="item 0"):
        await run_items(range(3), one, Width())


async def test_the_others_are_cancelled_when_a_concurrent_iteration_fails() -> None:
    cancelled: list[int] = []

    async def one(index: int, _: int) -> None:
        if index == 1:
            raise TaskFailed("no")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(index)
            raise

    with pytest.raises(TaskFailed):
        await run_items(range(3), one, Width())
    assert sorted(cancelled) == [0, 2]


async def test_loops_inside_loops_share_one_bound() -> None:
    running = most = 0
    width = Width(12)

    async def inner(_: int, __: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async def outer(_: int, __: int) -> None:
        await run_items(range(20), inner, width)

    await run_items(range(20), outer, width)
    assert most == 11  # 8 outer ones with one inner each, of which one found room for 4
    with width.take(20) as workers:
        assert workers == PARALLEL


@pytest.mark.parametrize("concurrent", [False, True])
async def test_cancellation_reaches_the_iterations(concurrent: bool) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def one(_: int, __: int) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    loop = asyncio.create_task(run_items([1, 2], one, Width() if concurrent else None))
    await started.wait()
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    assert cancelled.is_set()


@pytest.mark.parametrize(
    ("iterations", "merged"),
    [
        ([], {}),
        ([{"a": 1}, {"a": 2}], {"a": 2}),
        ([{"a": [1]}, {"a": []}, {"a": [2, 3]}], {"a": [1, 2, 3]}),
        ([{"a": [1]}, {"a": None}], {"a": [1]}),
        ([{"a": None}, {"a": [1]}], {"a": [1]}),
        ([{"a": 1}, {"a": None}], {"a": None}),
        ([{"a": [1]}, {"a": 2}, {"a": [3]}], {"a": [3]}),
        ([{"a": [1]}, {"b": 2}], {"a": [1], "b": 2}),
    ],
)
def test_lists_are_joined_and_of_other_values_the_last_wins(
    iterations: list[dict[str, Any]], merged: dict[str, Any]
) -> None:
    assert merge_outputs(iterations) == merged


def test_merging_leaves_the_lists_of_iterations_alone() -> None:
    first = {"a": [1]}
    merge_outputs([first, {"a": [2]}])
    assert first == {"a": [1]}
