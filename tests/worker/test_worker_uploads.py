"""Files that came with a call: whole under their names, or not there at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from machina.errors import ConnectorFailed, StoreDown
from machina.store.blobs import BlobStore
from machina.worker.uploads import Uploads
from tests.engine.documenting import make_run

RUN = make_run(kind="task", inputs={"uploads": [{"path": "a.csv", "blob": "b"}]})


class Blobs:
    """A store with one blob, whose answers can be lost in the middle."""

    def __init__(self, *pieces: bytes | StoreDown) -> None:
        self.pieces = pieces

    async def read(self, project: str, blob: str) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, StoreDown):
                raise piece
            yield piece


def laying(blobs: Blobs, directory: Path) -> Uploads:
    return Uploads(cast(BlobStore, blobs), lambda _: directory / "run")


def files(directory: Path) -> dict[str, Any]:
    return {path.name: path.read_bytes() for path in (directory / "run").iterdir()}


async def test_a_file_is_laid_under_its_name_and_may_be_laid_again(tmp_path: Path) -> None:
    uploads = laying(Blobs(b"one,", b"two"), tmp_path)
    for _ in range(2):
        await uploads.lay(RUN)
        assert files(tmp_path) == {"a.csv": b"one,two"}


async def test_nothing_half_written_is_left_when_the_store_goes_away(tmp_path: Path) -> None:
    with pytest.raises(StoreDown):
        await laying(Blobs(b"one,", StoreDown()), tmp_path).lay(RUN)
    assert files(tmp_path) == {}


async def test_a_file_that_is_gone_fails_the_call_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConnectorFailed, match="send the call again"):
        await laying(Blobs(), tmp_path).lay(RUN)
    assert files(tmp_path) == {}
