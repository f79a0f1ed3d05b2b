"""Whatever is done to both, the store in MongoDB and the embedded one hold and say the same.

On a server that is more lenient than MongoDB, which is the harder half: what it is not trusted with
is done in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machina.errors import MachinaError
from machina.store.base import Backend, Collection
from machina.store.embedded import open_embedded
from machina.store.mongo import open_mongo
from tests.mongo_server import empty, shared_server
from tests.store.strategies import conditions, fields, records, singles, texts, values

some = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
names = st.sampled_from(("a", "b"))
documents = st.builds(lambda record, **more: record | more, records, name=names, n=singles)
paths = st.one_of(fields, st.sampled_from(("name", "n", "_id", "x.$y", "%z")))
queries = st.one_of(
    st.dictionaries(paths, st.one_of(conditions, singles), max_size=2),
    st.builds(lambda n, q: q | {"name": n}, names, st.dictionaries(paths, conditions, max_size=1)),
    st.builds(
        lambda name, parts: {name: parts},
        st.sampled_from(("$and", "$or", "$nor")),
        st.lists(st.dictionaries(paths, conditions, max_size=2), min_size=1, max_size=2),
    ),
    st.builds(lambda path, c: {path: {"$not": c}}, paths, conditions),
)
sorts = st.lists(st.tuples(fields, st.sampled_from((1, -1))), max_size=2)
changes = st.dictionaries(
    st.sampled_from(("$set", "$unset", "$inc", "$max", "$push", "$setOnInsert")),
    st.dictionaries(paths, st.one_of(values, texts, st.integers(-2, 3)), min_size=1, max_size=2),
    max_size=2,
)

Outcome = Any
Act = Callable[[Collection], Coroutine[Any, Any, Outcome]]


class Both:
    """The same collection in either store."""

    def __init__(self, runner: asyncio.Runner, *collections: Collection) -> None:
        self._runner = runner
        self._collections = collections

    def hold(self, given_records: list[dict[str, Any]]) -> None:
        """Makes these all that is there."""

        async def fill(collection: Collection) -> None:
            await collection.delete({})
            for number, record in enumerate(given_records):
                await collection.insert({"_id": f"{number}", **record})

        self.agree(fill)

    def agree(self, act: Act) -> None:
        """Does something with both and requires the same answer, or the same refusal."""
        embedded, mongo = self._runner.run(self._outcomes(act))
        assert mongo == embedded

    async def _outcomes(self, act: Act) -> list[Outcome]:
        return [await self._outcome(act, collection) for collection in self._collections]

    async def _outcome(self, act: Act, collection: Collection) -> Outcome:
        try:
            return await act(collection)
        except MachinaError as error:
            return type(error), error.field


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> list[Collection]:
            backends: list[Backend] = [
                await stack.enter_async_context(open_embedded(tmp_path)),
                await stack.enter_async_context(open_mongo(empty(shared_server().url))),
            ]
            return [backend.collection("documents") for backend in backends]

        yield Both(runner, *runner.run(start()))
        runner.run(stack.aclose())


def test_they_find_and_count_the_same(both: Both) -> None:
    @some
    @given(st.lists(documents, max_size=4), queries, sorts, st.integers(0, 2), st.integers(0, 3))
    def check(held: list[dict[str, Any]], query: Any, sort: Any, skip: int, limit: int) -> None:
        both.hold(held)
        both.agree(lambda c: c.find(query, sort=sort))
        both.agree(lambda c: c.find(query, sort=sort, skip=skip, limit=limit, fields=["a.b", "d"]))
        both.agree(lambda c: c.count(query))

    check()


def test_they_change_and_remove_the_same(both: Both) -> None:
    @some
    @given(st.lists(documents, max_size=3), queries, changes, sorts, st.booleans())
    def check(held: list[dict[str, Any]], query: Any, change: Any, sort: Any, upsert: bool) -> None:
        both.hold(held)
        both.agree(lambda c: c.find_and_update(query, change, sort=sort, upsert=upsert))
        both.agree(lambda c: c.find({}))
        both.agree(lambda c: c.update_many(query, change))
        both.agree(lambda c: c.find({}))
        both.agree(lambda c: c.delete(query))
        both.agree(lambda c: c.find({}))

    check()
