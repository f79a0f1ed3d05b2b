"""The engine's door to documents: the run's project, the id reserved for its thread, patience."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from machina.engine.borders import cross_border
from machina.engine.document_door import Document, Draft, Meaning, Query, Sort, Upsert
from machina.errors import Invalid, TaskFailed
from machina.runs.run import Run
from machina.store.base import Duplicate, Record
from machina.store.document_batches import UpsertItem
from machina.store.documents import DocumentStore
from machina.store.vectors import Embedding
from machina.worker.patience import patiently

THREAD: Final = "thread"
"""The name of the documents that hold conversations."""
SCORE: Final = "similarity_score"
MAX_RESULT_BYTES: Final = 64_000_000
"""What one search may bring into a run, roughly."""
FEW: Final = 8
"""Upserts that are done one after the other, each in one step of the store."""


class RunDocuments:
    """A `DocumentDoor` for one attempt of a run."""

    def __init__(self, run: Run, documents: DocumentStore) -> None:
        self._run = run
        self._documents = documents

    async def find(self, query: Query, *, sort: Sort = (), limit: int) -> list[Document]:
        """See `DocumentDoor.find`."""
        with _for_the_task():
            found = await patiently(
                lambda: self._documents.find(self._run.project, query, sort=sort, limit=limit)
            )
        return await _seen(found)

    async def nearest(
        self,
        query: Query,
        to: Meaning,
        *,
        sort: Sort = (),
        pool: int,
        at_least: float,
        limit: int,
    ) -> list[Document]:
        """See `DocumentDoor.nearest`."""
        with _for_the_task():
            embedding = Embedding.of(to.space, to.numbers)
            found = await patiently(
                lambda: self._documents.nearest(
                    self._run.project,
                    query,
                    embedding,
                    sort=sort,
                    pool=pool,
                    at_least=at_least,
                    limit=limit,
                )
            )
        documents = await _seen([record for record, _ in found])
        return [
            {**document, SCORE: score}
            for document, (_, score) in zip(documents, found, strict=True)
        ]

    async def insert(self, drafts: Sequence[Draft]) -> list[Document]:
        """See `DocumentDoor.insert`."""
        first = next((at for at, draft in enumerate(drafts) if draft.name == THREAD), None)
        async with self._thread(wanted=first is not None) as thread:
            items = [
                _item(draft, None, thread.id if at == first else None)
                for at, draft in enumerate(drafts)
            ]
            return await self._write(items, None, thread)

    async def update(self, query: Query, draft: Draft, *, upsert: bool) -> Document | None:
        """See `DocumentDoor.update`."""
        async with self._thread(wanted=upsert and draft.name == THREAD) as thread:
            with _for_the_task():
                record = await self._update(query, draft, thread.id, upsert=upsert)
            if record is None:
                return None
            thread.note([record])
            return (await _seen([record]))[0]

    async def upsert(self, name: str, upserts: Sequence[Upsert]) -> list[Document]:
        """See `DocumentDoor.upsert`."""
        if len(upserts) <= FEW and all(one.match is not None for one in upserts):
            return await self._one_by_one(name, upserts)
        async with self._thread(wanted=name == THREAD) as thread:
            items = [
                _item(one.draft, one.match, thread.id if at == 0 else None)
                for at, one in enumerate(upserts)
            ]
            return await self._write(items, name, thread)

    async def _one_by_one(self, name: str, upserts: Sequence[Upsert]) -> list[Document]:
        """Each in one step of the store, which nobody else can come between."""
        written: dict[str, Document] = {}
        for one in upserts:
            match = {path: _equal_to(value) for path, value in (one.match or {}).items()}
            document = await self.update({"name": name, **match}, one.draft, upsert=True)
            if document is not None:
                written[document["_id"]] = document
        return [*written.values()]

    async def _write(
        self, items: Sequence[UpsertItem], name: str | None, thread: _Thread
    ) -> list[Document]:
        with _for_the_task():
            project = self._run.project
            batch = await patiently(lambda: self._documents.plan(project, items, name=name))
            written = await patiently(lambda: self._documents.write(batch))
        thread.note(written)
        return await _seen(written)

    async def _update(
        self, query: Query, draft: Draft, reserved: str | None, *, upsert: bool
    ) -> Record | None:
        item = _item(draft, None, None)
        fields = {"name": draft.name, **draft.fields, "value": draft.value}
        fields |= {f"metadata.{key}": value for key, value in draft.metadata.items()}
        names_metadata = any(path.split(".")[0] == "metadata" for path in (*fields, *query))
        insert: dict[str, Any] | None = None
        if upsert:
            insert = {} if names_metadata else {"metadata": {}}
        return await self._set(query, fields, insert, item, reserved)

    async def _set(
        self,
        query: Query,
        fields: Mapping[str, Any],
        insert: Mapping[str, Any] | None,
        item: UpsertItem,
        reserved: str | None,
    ) -> Record | None:
        def change(asked: Query, insert: Mapping[str, Any] | None, id: str | None) -> Any:
            return self._documents.update(
                self._run.project,
                asked,
                fields,
                insert=insert,
                id=id,
                embedding=item.embedding,
                embeds=item.embeds,
            )

        try:
            found: Record | None = await patiently(lambda: change(query, insert, reserved))
        except Duplicate:
            if reserved is None:
                raise
            # An earlier attempt of this run inserted its thread; this one inserts it once more.
            found = await patiently(lambda: change({"_id": reserved}, None, None))
        return found

    @asynccontextmanager
    async def _thread(self, *, wanted: bool) -> AsyncIterator[_Thread]:
        """The id reserved for the run's thread; it stays reserved unless a document takes it."""
        thread = _Thread(self._run.thread_id if wanted and self._run.thread_reserved else None)
        if thread.id is not None:
            self._run.thread_reserved = False  # for others while this one writes
        try:
            yield thread
        finally:
            if thread.id is not None and not thread.is_taken:
                self._run.thread_reserved = True


class _Thread:
    """A reserved id on offer, None when there is none, and whether a document took it."""

    def __init__(self, id: str | None) -> None:
        self.id = id
        self.is_taken = False

    def note(self, written: Sequence[Record]) -> None:
        """Looks for it among documents that were written."""
        self.is_taken = self.is_taken or any(record["_id"] == self.id for record in written)


@contextmanager
def _for_the_task() -> Iterator[None]:
    """What the store refuses is the template's to change."""
    try:
        yield
    except (Invalid, Duplicate) as refused:
        raise TaskFailed(refused.message) from refused


def _item(draft: Draft, match: Mapping[str, Any] | None, id: str | None) -> UpsertItem:
    meaning = draft.meaning
    return UpsertItem(
        value=draft.value,
        metadata=draft.metadata,
        fields={"name": draft.name, **draft.fields},
        match=match,
        embedding=None if meaning is None else Embedding.of(meaning.space, meaning.numbers),
        embeds=draft.embeds,
        id=id,
    )


def _equal_to(value: Any) -> Any:
    return {"$eq": value} if isinstance(value, Mapping) else value


async def _seen(records: Sequence[Record]) -> list[Document]:
    """The records as expressions see them.

    Raises:
        TaskFailed: they are more than a run can hold.
    """
    return await cross_border(_View().documents, records)


class _View:
    """Copies records with dates as expressions have them, and counts what they take."""

    def __init__(self) -> None:
        self._left = MAX_RESULT_BYTES

    def documents(self, records: Sequence[Record]) -> list[Document]:
        return [
            {name: self._value(value) for name, value in record.items() if name != "project"}
            for record in records
        ]

    def _value(self, value: Any) -> Any:
        kind = type(value)
        self._left -= 16 + (len(value) if kind is str else 0)
        if self._left < 0:
            raise TaskFailed(
                f"The documents take more than {MAX_RESULT_BYTES} bytes; set a smaller "
                "'search-limit', or narrow the filters."
            )
        if kind is dict:
            return {key: self._value(item) for key, item in value.items()}
        if kind is list or kind is tuple:
            return [self._value(item) for item in value]
        if isinstance(value, datetime) and value.tzinfo is not None:
            return value.astimezone(UTC).replace(tzinfo=None)
        return value
