"""Fixtures of the store's tests: an opened backend, and repositories on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from machina.settings import Settings, load_settings
from machina.store import Store, open_store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that name an empty store."""
    return load_settings(data_dir=tmp_path / "data")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """An empty store."""
    async with open_store(settings) as opened:
        yield opened
