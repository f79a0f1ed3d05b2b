"""The worker's door to documents: patience with a store that is away, errors in the run's terms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from machina.engine.document_door import Draft, Meaning, Upsert
from machina.errors import StoreDown, TaskFailed
from machina.ids import make_mint
from machina.settings import Settings, load_settings
from machina.store import open_backend
from machina.store.base import Backend, Collection
from machina.store.documents import DocumentStore
from machina.worker.documents import RunDocuments
from tests.engine.documenting import THREAD, make_run


class Shaky:
    """A collection whose first answers are lost: the call was done, and says that it was not."""

    def __init__(self, collection: Collection, lost: int) -> None:
        self._collection = collection
        self.lost = lost

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._collection, name)
        if not callable(member):
            return member

        async def call(*values: Any, **named: Any) -> Any:
            answer: Awaitable[Any] = member(*values, **named)
            result = await answer
            if self.lost:
                self.lost -= 1
                raise StoreDown("The answer was lost.")
            return result

        return call


class ShakyBackend:
    """A backend of shaky documents."""

    def __init__(self, backend: Backend, lost: int) -> None:
        self._backend = backend
        self.documents = Shaky(backend.collection("documents"), lost)

    def collection(self, name: str) -> Any:
        return self.documents if name == "documents" else self._backend.collection(name)

    async def now(self) -> datetime:
        return await self._backend.now()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path / "data")


@pytest.fixture
async def backend(settings: Settings) -> AsyncIterator[Backend]:
    async with open_backend(settings) as opened:
        yield opened


@pytest.fixture
def door(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], RunDocuments]:
    monkeypatch.setattr("machina.worker.patience.PAUSE_SECONDS", 0.0)

    def open_door(lost: int = 0) -> RunDocuments:
        store = DocumentStore(ShakyBackend(backend, lost), make_mint())
        return RunDocuments(make_run(), store)

    return open_door


async def test_a_lost_answer_writes_nothing_twice(
    door: Callable[[int], RunDocuments], backend: Backend
) -> None:
    drafts = [Draft("n", number, {"k": number}) for number in range(3)]
    written = await door(2).insert(drafts)
    assert [row["value"] for row in written] == [0, 1, 2]
    for lost in (1, 2):
        await door(lost).update({"name": "m"}, Draft("m", lost), upsert=True)
    upserts = [Upsert(draft, {"metadata.k": draft.value}) for draft in drafts]
    await door(2).upsert("n", upserts)
    many = [Upsert(Draft("n", n, {"k": n}), {"metadata.k": n}) for n in range(20)]
    await door(3).upsert("n", many)
    await door(1).upsert("o", [Upsert(Draft("o", 1), None)])
    documents = backend.collection("documents")
    assert await documents.count({"name": "n"}) == 20
    assert await documents.count({"name": "m"}) == 1
    assert await documents.count({"name": "o"}) == 1


async def test_a_lost_answer_does_not_cost_the_thread_its_id(
    door: Callable[[int], RunDocuments], backend: Backend
) -> None:
    written = await door(1).update({"name": "thread"}, Draft("thread", 1), upsert=True)
    assert written is not None
    assert written["_id"] == THREAD
    assert await backend.collection("documents").count({}) == 1


async def test_a_search_is_repeated_until_the_store_answers(
    door: Callable[[int], RunDocuments],
) -> None:
    meaning = Meaning("s", [1.0])
    await door(0).insert([Draft("n", 1, meaning=meaning, embeds=True)])
    assert len(await door(3).find({"name": "n"}, limit=5)) == 1
    [found] = await door(3).nearest({}, meaning, pool=5, at_least=0.5, limit=5)
    assert (found["value"], found["similarity_score"]) == (1, 1.0)


async def test_a_store_that_stays_away_ends_the_attempt(
    door: Callable[[int], RunDocuments], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machina.worker.patience.PATIENCE_SECONDS", 0.0)
    with pytest.raises(StoreDown):
        await door(1_000).find({}, limit=1)
    with pytest.raises(StoreDown):
        await door(1_000).insert([Draft("n", 1)])


async def test_what_the_store_refuses_is_the_tasks_failure(
    door: Callable[[int], RunDocuments],
) -> None:
    calls: list[Awaitable[Any]] = [
        door(0).find({"value": {"$where": "1"}}, limit=1),
        door(0).insert([Draft("n", object())]),
        door(0).update({"name": "n"}, Draft("n", 2**70), upsert=True),
        door(0).upsert("n", [Upsert(Draft("n", object()), None)]),
        door(0).nearest({}, Meaning("s", [float("nan")]), pool=1, at_least=0, limit=1),
    ]
    for call in calls:
        with pytest.raises(TaskFailed):
            await call


async def test_dates_cross_the_door_in_both_directions(
    door: Callable[[int], RunDocuments], backend: Backend
) -> None:
    naive = datetime(2026, 1, 3, 4, 5, 6, 789_000)  # noqa: DTZ001  # as expressions have them
    [written] = await door(0).insert([Draft("n", {"at": (naive,), "raw": b"\x00"})])
    [stored] = await backend.collection("documents").find({})
    assert stored["value"]["at"] == [naive.replace(tzinfo=UTC)]
    [found] = await door(0).find({"value.at": naive}, limit=1)
    assert found["value"] == {"at": [naive], "raw": b"\x00"}
    assert written["created"].tzinfo is None
