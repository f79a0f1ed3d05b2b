"""Blobs: uploaded files on their way from the API to the worker, in pieces, for a limited time.

A piece is `{_id, blob, number, project, data, expires}`. Whoever has used a blob deletes it; what
was forgotten goes when another blob is added after its time.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from datetime import datetime, timedelta
from typing import Final

from machina.ids import ObjectIdMint
from machina.store.base import Backend, Record

PIECE_BYTES: Final = 262_144
"""Of one record: small enough for every backend, and for a read not to be felt."""


class BlobStore:
    """The blobs of all projects. Every call raises `StoreDown` when the store is away."""

    def __init__(self, backend: Backend, mint: ObjectIdMint) -> None:
        self._pieces = backend.collection("blobs")
        self._backend = backend
        self._mint = mint

    async def add(
        self, project: str, content: AsyncIterable[bytes], *, keep_seconds: float
    ) -> tuple[str, int]:
        """Keeps what `content` gives, in pieces of any size; returns the blob's id and its bytes.

        Nothing is kept of a content that breaks off with an exception.
        """
        now = await self._backend.now()
        await self._pieces.delete({"expires": {"$lte": now}})
        blob, expires = self._mint(now.timestamp()), now + timedelta(seconds=keep_seconds)
        number = size = 0
        try:
            async for data in _even(content):
                await self._pieces.insert(_piece(project, blob, number, data, expires))
                number, size = number + 1, size + len(data)
        except BaseException:
            await self.delete(project, blob)
            raise
        return blob, size

    async def read(self, project: str, blob: str) -> AsyncIterator[bytes]:
        """The blob's bytes in order; none when the project has no such blob any more."""
        number = 0
        while True:
            asked = {"blob": blob, "number": number, "project": project}
            found = await self._pieces.find(asked, limit=1)
            if not found:
                return
            yield found[0]["data"]
            number += 1

    async def delete(self, project: str, *blobs: str) -> None:
        """Forgets blobs; those that are not there are no error."""
        await self._pieces.delete({"blob": {"$in": list(blobs)}, "project": project})


def _piece(project: str, blob: str, number: int, data: bytes, expires: datetime) -> Record:
    return {
        "_id": f"{blob}-{number}",
        "blob": blob,
        "number": number,
        "project": project,
        "data": data,
        "expires": expires,
    }


async def _even(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of `PIECE_BYTES`; an empty content is one empty piece."""
    waiting = bytearray()
    empty = True
    async for data in content:
        waiting += data
        while len(waiting) >= PIECE_BYTES:
            yield bytes(waiting[:PIECE_BYTES])
            del waiting[:PIECE_BYTES]
            empty = False
    if waiting or empty:
        yield bytes(waiting)
