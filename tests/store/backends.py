"""The backends that the store's contract is checked against: one line here and a new one joins."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import pytest

from machina.settings import Settings, load_settings
from machina.store import open_backend
from machina.store.base import Backend
from machina.store.embedded import FILE_NAME, open_embedded
from machina.store.mongo import open_mongo
from tests.mongo_server import REAL_URL, empty, real_url, shared_server


class Place(Protocol):
    """An empty store of one kind, and how to reach it from anywhere."""

    @property
    def settings(self) -> Settings:
        """What opens this store in this process."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What another process needs in its environment in order to open it."""

    def unanswering(self) -> AbstractAsyncContextManager[Backend]:
        """A backend on this store that gets no answer."""


def open_place(place: Place) -> AbstractAsyncContextManager[Backend]:
    """One more backend on the same store, for the current event loop."""
    return open_backend(place.settings)


class EmbeddedPlace:
    """The SQLite store in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.settings = load_settings(data_dir=directory)
        self.environment = {"MACHINA_DATA_DIR": str(directory)}

    @asynccontextmanager
    async def unanswering(self) -> AsyncIterator[Backend]:
        async with open_embedded(self.directory, busy_seconds=0.05) as backend:
            other = sqlite3.connect(self.directory / FILE_NAME, isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            try:
                yield backend
            finally:
                other.close()


class MongoPlace:
    """A database of a server that speaks MongoDB's protocol, emptied first."""

    def __init__(self, url: str) -> None:
        self.settings = load_settings(mongodb_url=empty(url))
        self.environment = {"MONGODB_URL": url}

    @asynccontextmanager
    async def unanswering(self) -> AsyncIterator[Backend]:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
            url = f"mongodb://127.0.0.1:{silent.getsockname()[1]}/machina"
            async with open_mongo(url, selection_seconds=0.2) as backend:
                yield backend


PLACES: Final[dict[str, Callable[[Path], Place]]] = {
    "embedded": EmbeddedPlace,
    "mongo": lambda _: MongoPlace(shared_server().url),
}
if REAL_URL is not None:
    PLACES["real-mongo"] = lambda _: MongoPlace(real_url())
CHILD_ENVIRONMENT: Final = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": "."}


@pytest.fixture(params=sorted(PLACES))
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of each kind; a conftest.py that imports it offers it to its folder."""
    return PLACES[request.param](tmp_path)
