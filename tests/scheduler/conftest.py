"""A world for the schedulers of a test: on the embedded store, or on every kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.scheduler.world import World
from tests.store.backends import EmbeddedPlace, Place, any_place, open_place

__all__ = ["any_place"]


@pytest.fixture
def embedded_place(tmp_path: Path) -> Place:
    """An empty embedded store."""
    return EmbeddedPlace(tmp_path)


@pytest.fixture
async def world(embedded_place: Place) -> AsyncIterator[World]:
    """A deployment on the embedded store."""
    async with open_place(embedded_place) as backend:
        yield World(backend)


@pytest.fixture
async def any_world(any_place: Place) -> AsyncIterator[World]:
    """A deployment on each kind of store."""
    async with open_place(any_place) as backend:
        yield World(backend)
