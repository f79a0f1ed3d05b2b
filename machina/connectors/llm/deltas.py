"""Reading an answer of a provider to its end, or leaving it early."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from machina.connectors.llm.base import ChatDelta, ChatRequest, Provider


@asynccontextmanager
async def open_deltas(
    provider: Provider, request: ChatRequest
) -> AsyncIterator[AsyncIterator[ChatDelta]]:
    """The answer's deltas. Leaving the block closes the connection, however it is left."""
    deltas = provider.chat(request)
    try:
        yield deltas
    finally:
        close = getattr(deltas, "aclose", None)
        if close is not None:
            await close()
