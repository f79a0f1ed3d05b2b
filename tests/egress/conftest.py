"""A client that may call loopback under some names, and the server it calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from machina.egress import EgressClient, EgressLimits, EgressPolicy
from tests.egress.server import NO_CERTIFICATES, Server


async def everything_is_here(host: str, port: int) -> Sequence[str]:
    """Every name stands for loopback."""
    return ["127.0.0.1"]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[EgressClient]:
    """May call `a.test` and `b.test`, both on loopback, and loopback itself."""
    client = EgressClient(
        EgressPolicy.of("a.test", "b.test", "127.0.0.1"),
        EgressLimits(total_seconds=5, idle_seconds=5, max_bytes=1_000_000),
        everything_is_here,
        NO_CERTIFICATES,
    )
    yield client
    await client.aclose()
