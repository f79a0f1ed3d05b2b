"""The backends of the store's contracts, each in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from machina.store.base import Backend
from tests.store.backends import Place, open_place
from tests.store.backends import any_place as place

__all__ = ["place"]


@pytest.fixture
async def backend(place: Place) -> AsyncIterator[Backend]:
    """An opened backend on an empty store of each kind."""
    async with open_place(place) as opened:
        yield opened
