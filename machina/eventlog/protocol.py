"""Redis spoken by hand, for the two paths that every event takes: appending and reading.

redis-py spends several times longer on a command than Redis itself (docs/performance.md). Here a
command is packed and a reply parsed by hiredis, with no task, stream, lock or timer in between;
what is rare, connecting included, still goes through redis-py's own parsed settings.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import hiredis
from redis import exceptions
from redis.asyncio import Connection, ConnectionPool, Redis, UnixDomainSocketConnection

from machina.eventlog.asking import ask

OnReply = Callable[[Any], None]
OnLost = Callable[[Exception], None]

_NOTHING: Final = object()

_BY_CODE: Final[Mapping[str, type[exceptions.RedisError]]] = {
    "LOADING": exceptions.BusyLoadingError,
    "NOAUTH": exceptions.AuthenticationError,
    "NOPERM": exceptions.NoPermissionError,
    "NOSCRIPT": exceptions.NoScriptError,
    "OOM": exceptions.OutOfMemoryError,
    "READONLY": exceptions.ReadOnlyError,
    "WRONGPASS": exceptions.AuthenticationError,
}


def make_error(text: str) -> exceptions.RedisError:
    """The error of a refusal, as redis-py names it; the server's whole text is its message."""
    return _BY_CODE.get(text.partition(" ")[0], exceptions.ResponseError)(text)


def can_speak_to(pool: ConnectionPool) -> bool:
    """Whether the pool's server can be spoken to by hand: a plain socket, a fixed password."""
    plain = pool.connection_class in (Connection, UnixDomainSocketConnection)
    return plain and pool.connection_kwargs.get("credential_provider") is None


class RedisProtocol(asyncio.Protocol):
    """One connection: bytes in, replies out. Made by `connect`."""

    def __init__(self, on_reply: OnReply, on_lost: OnLost) -> None:
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._reader = hiredis.Reader(replyError=make_error, notEnoughData=_NOTHING)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOTHING:
                self._on_reply(reply)
        except hiredis.ProtocolError as error:
            self._on_lost(exceptions.InvalidResponse(str(error)))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._closed.set()
        self._on_lost(exceptions.ConnectionError(f"The connection to Redis was lost: {exc}"))

    def send(self, *command: Any) -> None:
        """Sends a command; its reply is given to `on_reply`, in the order of sending."""
        if self._transport is None:
            raise exceptions.ConnectionError("The connection to Redis is not made.")
        self._transport.write(hiredis.pack_command(command))

    @property
    def is_closed(self) -> bool:
        """Whether the connection is gone."""
        return self._closed.is_set()

    def abort(self) -> None:
        """Drops the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def aclose(self) -> None:
        """Drops the connection, and waits until it is gone."""
        self.abort()
        await self._closed.wait()


async def connect(
    options: Mapping[str, Any], on_reply: OnReply, on_lost: OnLost
) -> tuple[RedisProtocol, int]:
    """Connects by the settings of a pool; also says how many replies of the handshake will come.

    Raises:
        redis.exceptions.RedisError, OSError: the server cannot be reached in time.
    """
    loop = asyncio.get_running_loop()

    def make() -> RedisProtocol:
        return RedisProtocol(on_reply, on_lost)

    async with asyncio.timeout(options.get("socket_connect_timeout") or 2.0):
        if options.get("path"):
            _, wire = await loop.create_unix_connection(make, options["path"])
        else:
            host, port = options.get("host", "localhost"), options.get("port", 6379)
            transport, wire = await loop.create_connection(make, host, int(port))
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return wire, _shake_hands(wire, options)


def _shake_hands(wire: RedisProtocol, options: Mapping[str, Any]) -> int:
    replies = 0
    if options.get("password") is not None:
        named = [options["username"]] if options.get("username") else []
        wire.send("AUTH", *named, options["password"])
        replies += 1
    if options.get("db"):
        wire.send("SELECT", options["db"])
        replies += 1
    return replies


class Pooled:
    """Commands through redis-py, replies as they came: for servers not spoken to by hand.

    A command whose caller was cancelled may leave a reply behind, so its connection is dropped.
    """

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool

    async def execute(self, *command: Any) -> Any:
        """The reply. Raises `RedisError`."""
        connection: Any = await ask(self._pool.get_connection())  # type: ignore[no-untyped-call]  # redis-py
        try:
            await ask(connection.send_command(*command))
            return await ask(connection.read_response())
        except exceptions.ResponseError:
            raise
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def aclose(self) -> None:
        """Nothing is held."""
