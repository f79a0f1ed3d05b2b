"""`foreach`, the same for tasks and steps: which items, in what order, and how results merge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from machina.errors import BudgetExceeded, TaskFailed

T = TypeVar("T")
One = Callable[[int, Any], Awaitable[T]]
"""What is done with the item at an index."""

MAX_ITEMS: Final = 10_000
"""The largest search a template may make, so every list it can loop over fits."""
PARALLEL: Final = 8
"""Items of one concurrent loop in work at once."""


def read_items(value: Any, where: str) -> list[Any]:
    """The items of a loop; null is none.

    Raises:
        TaskFailed: the value is no list.
        BudgetExceeded: the list is too long.
    """
    if value is None:
        return []
    if not isinstance(value, list | tuple | set | frozenset):
        raise TaskFailed(
            f"foreach of {where} needs a list, but its value is {type(value).__name__}; "
            "correct its 'value'."
        )
    if len(value) > MAX_ITEMS:
        raise BudgetExceeded(
            f"foreach of {where} has {len(value)} items; at most {MAX_ITEMS} are allowed."
        )
    return list(value)


async def run_items(items: Sequence[Any], one: One[T], *, concurrent: bool) -> list[T]:
    """The results in the order of the items. The first failure ends the loop.

    A concurrent loop has at most `PARALLEL` items in work; when one fails, the others are cancelled
    and, of several failures, the one of the foremost item is raised.
    """
    if not concurrent:
        return [await one(index, item) for index, item in enumerate(items)]
    results: dict[int, T] = {}
    failures: dict[int, Exception] = {}
    waiting = iter(enumerate(items))

    async def work() -> None:
        for index, item in waiting:
            try:
                results[index] = await one(index, item)
            except Exception as failure:
                failures[index] = failure
                raise

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(PARALLEL, len(items))):
                group.create_task(work())
    except ExceptionGroup:
        raise failures[min(failures)] from None
    return [results[index] for index in range(len(items))]


def merge_outputs(iterations: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a loop adds to the state: lists are joined in item order, of other values the last wins.

    A null takes nothing away from a list: it is the mark of an iteration that had nothing to give.
    """
    merged: dict[str, Any] = {}
    for outputs in iterations:
        for key, value in outputs.items():
            before = merged.get(key)
            if not isinstance(before, list):
                merged[key] = list(value) if isinstance(value, list) else value
            elif isinstance(value, list):
                before.extend(value)
            elif value is not None:
                merged[key] = value
    return merged
