"""`foreach`, the same for tasks and steps: which items, in what order, and how results merge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from machina.engine.borders import weigh
from machina.errors import BudgetExceeded, TaskFailed

T = TypeVar("T")
One = Callable[[int, Any], Awaitable[T]]
"""What is done with the item at an index."""

MAX_KEPT: Final = 64 * 1024 * 1024
"""About the bytes that the iterations of one loop may give together."""
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


class Kept:
    """Counts what the iterations of one loop give: it is all in memory until the loop ends."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._weight = 0

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Counts one iteration's outputs. Raises `BudgetExceeded` when they are too much."""
        self._weight += weigh(outputs, MAX_KEPT)
        if self._weight > MAX_KEPT:
            raise BudgetExceeded(
                f"The iterations of foreach in {self._where} give more than {MAX_KEPT >> 20} MiB; "
                "give back less of each, or loop over fewer items."
            )


class Width:
    """How many items of concurrent loops one run may have in work, loops inside loops included."""

    def __init__(self, total: int = 4 * PARALLEL) -> None:
        self._free = total

    @contextmanager
    def take(self, wanted: int) -> Iterator[int]:
        """Room for up to `wanted` items at once, and for one in any case."""
        taken = min(wanted, PARALLEL, self._free)
        self._free -= taken
        try:
            yield max(taken, 1)
        finally:
            self._free += taken


async def run_items(items: Sequence[Any], one: One[T], width: Width | None) -> list[T]:
    """The results in the order of the items, one after the other or, given a `width`, concurrently.

    The first failure ends the loop. A concurrent one has at most `PARALLEL` items in work; when one
    fails, the others are cancelled and, of several failures, that of the foremost item is raised.
    """
    if width is None:
        return [await one(index, item) for index, item in enumerate(items)]
    with width.take(len(items)) as workers:
        return await _run_concurrently(items, one, workers)


async def _run_concurrently(items: Sequence[Any], one: One[T], workers: int) -> list[T]:
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
            for _ in range(workers):
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
