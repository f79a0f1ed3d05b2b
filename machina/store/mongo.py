"""Opens the store in MongoDB. The files `mongo_*` beside this one alone know the driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from machina.store.mongo_collection import MongoBackend
    from machina.store.mongo_connection import Connection

THREADS: Final = 48
"""Threads of the driver, shared by all event loops of a process. Two loops do not use them up, so
the one that renews a worker's lease never waits for calls of the other."""


@asynccontextmanager
async def open_mongo(
    url: str, *, selection_seconds: float | None = None
) -> AsyncIterator[MongoBackend]:
    """The store at `url`, for the current event loop; the server need not be there yet.

    Args:
        url: `mongodb://` or `mongodb+srv://`; the database it names is used, else `machina`.
        selection_seconds: how long a call waits for a server that takes writes; None: 3 s.

    Raises:
        SettingsInvalid: the URL is not understood.
    """
    backend, connection = await _load(url, selection_seconds)
    try:
        yield backend
    finally:
        await connection.close()


async def _load(url: str, selection_seconds: float | None) -> tuple[MongoBackend, Connection]:
    loop = asyncio.get_running_loop()
    os.environ.setdefault("MOTOR_MAX_WORKERS", str(THREADS))  # heeded when Motor is imported

    def load() -> tuple[type[MongoBackend], type[Connection], object]:
        # Half a second of imports that a process on the embedded store does not need.
        from machina.store.mongo_collection import MongoBackend  # noqa: PLC0415  # see above
        from machina.store.mongo_connection import Connection, connect  # noqa: PLC0415  # see above

        return MongoBackend, Connection, connect(url, loop, selection_seconds=selection_seconds)

    make_backend, make_connection, client = await asyncio.to_thread(load)
    connection = make_connection(client)
    return make_backend(connection), connection
