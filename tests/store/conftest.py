"""Fixtures of the store's tests: an opened backend, and repositories on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from machina.settings import load_settings
from machina.store import Store, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    async with open_store(load_settings(data_dir=tmp_path / "data")) as opened:
        yield opened
