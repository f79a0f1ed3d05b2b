"""An API process for a test: fresh store, fresh Redis, keys and two definitions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.api.harness import Api, make_settings, running_api
from tests.services import RedisServer


@pytest.fixture
async def api(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Api]:
    async with running_api(make_settings(tmp_path, redis_server.url)) as running:
        yield running


@pytest.fixture
async def client(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Calls with a client's key."""
    async with api.calls(api.client) as calls:
        yield calls


@pytest.fixture
async def admin(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Calls with an administrator's key."""
    async with api.calls(api.admin) as calls:
        yield calls


@pytest.fixture
async def nobody(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Calls without a key."""
    async with api.calls() as calls:
        yield calls
