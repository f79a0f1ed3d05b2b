"""A TCP proxy in the test's own event loop that breaks connections on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FaultProxy:
    """Forwards every connection to one unix socket, until told otherwise."""

    def __init__(self, target: str) -> None:
        self.dropped = 0
        """Replies swallowed so far."""
        self._target = target
        self._pattern: bytes | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The address of the proxy, for a Redis client."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def drop_reply_to(self, pattern: bytes) -> None:
        """The next request with these bytes is executed; its reply is lost with the connection."""
        self._pattern = pattern

    def cut(self) -> None:
        """Closes every connection; new ones are welcome."""
        for connection in list(self._connections):
            connection.close()

    def freeze(self) -> None:
        """Forwards nothing more; connections stay open, as on a network that drops packets."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forwards again, also what came meanwhile."""
        self._flowing.set()

    def take_pattern(self, request: bytes) -> bool:
        """Whether this request is the one whose reply is to be lost."""
        if self._pattern is None or self._pattern not in request:
            return False
        self._pattern = None
        return True

    async def flow(self) -> None:
        """Waits while frozen."""
        await self._flowing.wait()

    async def start(self) -> None:
        """Listens on a free port of the loopback interface."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        """Closes everything."""
        assert self._server is not None
        self._server.close()
        self.thaw()
        self.cut()
        await asyncio.gather(*(connection.ended.wait() for connection in list(self._connections)))
        await self._server.wait_closed()

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._target)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await self._reach()
        except OSError:
            writer.close()
            return
        connection = _Connection(self, writer, server_writer)
        self._connections.add(connection)
        try:
            await asyncio.gather(connection.requests(reader), connection.replies(server_reader))
        except OSError:
            pass  # reset by one side, which the other learns next
        finally:
            connection.close()
            self._connections.discard(connection)
            connection.ended.set()


class _Connection:
    def __init__(
        self, proxy: FaultProxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._swallow = False
        self.ended = asyncio.Event()

    async def requests(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            await self._proxy.flow()
            if self._proxy.take_pattern(data):
                self._swallow = True
            self._server.write(data)
            await self._server.drain()
        self.close()

    async def replies(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            await self._proxy.flow()
            if self._swallow:
                self._proxy.dropped += 1
                break
            self._client.write(data)
            await self._client.drain()
        self.close()

    def close(self) -> None:
        self._client.close()
        self._server.close()


@asynccontextmanager
async def open_proxy(target: str) -> AsyncIterator[FaultProxy]:
    """A running proxy before the unix socket `target`."""
    proxy = FaultProxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
