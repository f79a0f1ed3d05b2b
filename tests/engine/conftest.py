"""Fixtures of the engine's tests: a store of their own, and tasks over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from machina.settings import Settings, load_settings
from machina.store import open_store
from tests.engine.documenting import Desk


@pytest.fixture
def store_settings(tmp_path: Path) -> Settings:
    """Settings that name an empty store."""
    return load_settings(data_dir=tmp_path / "data")


@pytest.fixture
async def desk(store_settings: Settings) -> AsyncIterator[Desk]:
    """A desk over an empty store."""
    async with open_store(store_settings) as store:
        yield Desk(store)
