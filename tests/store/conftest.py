"""Fixtures of the store's tests: repositories, a server that is recorded, every kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from machina.settings import Settings, load_settings
from machina.store import Store, open_store
from machina.store.base import Backend
from machina.store.mongo import open_mongo
from tests.mongo_replies import MongoReplies
from tests.store.backends import any_place as place

__all__ = ["place"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that name an empty store."""
    return load_settings(data_dir=tmp_path / "data")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """An empty store."""
    async with open_store(settings) as opened:
        yield opened


@pytest.fixture
async def server() -> AsyncIterator[MongoReplies]:
    """A server that records what it is asked and answers as it is told."""
    server = MongoReplies()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def backend(server: MongoReplies) -> AsyncIterator[Backend]:
    """A backend that asks `server`."""
    async with open_mongo(server.url, selection_seconds=0.5) as backend:
        yield backend
