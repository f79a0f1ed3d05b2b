"""The engine's door to the documents of the run's project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Document = dict[str, Any]
"""A document as expressions see it: `_id` is text, dates are UTC without a zone, no embedding."""
Query = Mapping[str, Any]
Sort = Sequence[tuple[str, Literal[1, -1]]]


@dataclass(frozen=True, slots=True)
class Meaning:
    """The embedding of a text. Only those of one space can be compared."""

    space: str
    numbers: Sequence[float]


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be written into one document."""

    name: str
    value: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Merged into what a document that exists has."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of the document, such as `title`."""
    meaning: Meaning | None = None
    embeds: bool = False
    """Whether a meaning belongs to what is written: without one, an older one is removed."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """A draft for the newest document that has these values, else for a new one."""

    draft: Draft
    match: Mapping[str, Any] | None
    """Dotted paths and the values there, besides the name; None: always a new document."""


class DocumentDoor(Protocol):
    """Reads and writes the documents of one project, in the name of one run.

    Raises:
        TaskFailed: a query or a value that cannot be; the message says what to change.
        StoreDown: the store stayed away; that ends the attempt.
    """

    async def find(self, query: Query, *, sort: Sort = (), limit: int) -> list[Document]:
        """Matching documents, newest first unless sorted."""

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
        """Of the first `pool` matches with an embedding, the `limit` that mean most alike.

        Each carries `similarity_score`, the cosine, of `at_least` so much; the best comes first.
        """

    async def insert(self, drafts: Sequence[Draft]) -> list[Document]:
        """Adds documents and returns them in order."""

    async def update(self, query: Query, draft: Draft, *, upsert: bool) -> Document | None:
        """Writes into the newest match and returns it. None: nothing matched and nothing was added.

        With `upsert` a document of the query's equalities and the draft is added then.
        """

    async def upsert(self, name: str, upserts: Sequence[Upsert]) -> list[Document]:
        """Writes many drafts under one name, each in its turn; returns every document once."""
