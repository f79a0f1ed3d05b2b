"""Blobs: whole or not at all, for their project only, and not for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from machina.ids import make_mint
from machina.store.base import Backend
from machina.store.blobs import PIECE_BYTES, BlobStore


async def given(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(blobs: BlobStore, project: str, blob: str) -> list[bytes]:
    return [piece async for piece in blobs.read(project, blob)]


async def test_a_blob_comes_back_as_it_was_given(backend: Backend) -> None:
    blobs = BlobStore(backend, make_mint())
    contents = [
        (b"",),
        (b"x",),
        (b"\0\xff" * PIECE_BYTES, b"tail"),
        (b"x" * PIECE_BYTES,),
        (b"x" * (PIECE_BYTES - 1), b"yz"),
    ]
    for content in contents:
        blob, size = await blobs.add("p", given(*content), keep_seconds=60)
        pieces = await read(blobs, "p", blob)
        assert b"".join(pieces) == b"".join(content)
        assert size == len(b"".join(content))
        assert max(map(len, pieces)) <= PIECE_BYTES
        await blobs.delete("p", blob)
        assert await read(blobs, "p", blob) == []


async def test_a_blob_is_its_projects_own(backend: Backend) -> None:
    blobs = BlobStore(backend, make_mint())
    blob, _ = await blobs.add("p", given(b"mine"), keep_seconds=60)
    assert await read(blobs, "q", blob) == []
    await blobs.delete("q", blob)
    assert await read(blobs, "p", blob) == [b"mine"]


async def test_nothing_is_kept_of_a_content_that_breaks_off(backend: Backend) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * PIECE_BYTES
        raise ConnectionResetError

    blobs = BlobStore(backend, make_mint())
    with pytest.raises(ConnectionResetError):
        await blobs.add("p", broken(), keep_seconds=60)
    assert await backend.collection("blobs").count({}) == 0


async def test_what_was_forgotten_goes_when_its_time_is_over(backend: Backend) -> None:
    blobs = BlobStore(backend, make_mint())
    old, _ = await blobs.add("p", given(b"old"), keep_seconds=-1)
    new, _ = await blobs.add("p", given(b"new"), keep_seconds=60)
    assert await read(blobs, "p", old) == []
    assert await read(blobs, "p", new) == [b"new"]
