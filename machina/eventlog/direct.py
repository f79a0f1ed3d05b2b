"""One connection for commands that may share it: each waits for its own reply, none for a lock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from redis import exceptions

from machina.eventlog.protocol import OnLost, OnReply, RedisProtocol

Connect = Callable[[OnReply, OnLost], Awaitable[tuple[RedisProtocol, int]]]
"""Opens a connection; also says how many replies of the handshake will come."""


class Commands(Protocol):
    """What sends a command and gives the reply as Redis sent it: lists, bytes and numbers."""

    async def execute(self, *command: Any) -> Any:
        """The reply to one command.

        Raises:
            redis.exceptions.RedisError: refused, or the outcome is unknown.
            OSError: the server cannot be reached.
        """

    async def aclose(self) -> None:
        """Drops the connection; the next command opens another."""


class _Asked(NamedTuple):
    at: float
    reply: asyncio.Future[Any] | None
    """None: nobody waits for it, as for the handshake."""


class Direct:
    """Commands in flight are answered in order. A lost connection fails them all, once."""

    def __init__(self, connect: Connect, limit_seconds: float) -> None:
        """`limit_seconds` is how long a reply may take before the connection counts as dead."""
        self._connect = connect
        self._limit = limit_seconds
        self._asked: deque[_Asked] = deque()
        self._connection: RedisProtocol | None = None
        self._given_up: RedisProtocol | None = None
        """The last one that was dropped; it is gone a moment later."""
        self._timer: asyncio.TimerHandle | None = None
        self._opening = asyncio.Lock()

    async def execute(self, *command: Any) -> Any:
        """See `Commands.execute`."""
        connection = self._connection or await self._open()
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        now = loop.time()
        self._asked.append(_Asked(now, reply))
        connection.send(*command)
        if self._timer is None:
            self._timer = loop.call_at(now + self._limit, self._look_at_clock)
        return await reply

    async def aclose(self) -> None:
        """See `Commands.aclose`."""
        self._lose(exceptions.ConnectionError("The connection was closed."))
        if self._given_up is not None:
            await self._given_up.aclose()

    async def _open(self) -> RedisProtocol:
        async with self._opening:
            if self._connection is not None:  # opened by another command meanwhile
                return self._connection
            opened: list[RedisProtocol] = []

            def lose(error: Exception) -> None:
                if opened and self._connection is opened[0]:  # an older one's end means nothing
                    self._lose(error)

            connection, replies = await self._connect(self._take, lose)
            opened.append(connection)
            now = asyncio.get_running_loop().time()
            self._asked.extend(_Asked(now, None) for _ in range(replies))
            self._connection = connection
            return connection

    def _take(self, reply: Any) -> None:
        if not self._asked:  # of a connection that was given up
            return
        waiter = self._asked.popleft().reply
        if waiter is None:
            if isinstance(reply, Exception):  # refused at the handshake: nothing after it will do
                self._lose(reply)
        elif waiter.done():  # cancelled meanwhile
            return
        elif isinstance(reply, exceptions.RedisError):
            waiter.set_exception(reply)
        else:
            waiter.set_result(reply)

    def _look_at_clock(self) -> None:
        """One timer for all commands: it looks at the oldest and goes to sleep again."""
        self._timer = None
        if not self._asked:
            return
        loop = asyncio.get_running_loop()
        due = self._asked[0].at + self._limit
        if due <= loop.time():
            self._lose(exceptions.TimeoutError(f"Redis did not answer within {self._limit:g} s."))
        else:
            self._timer = loop.call_at(due, self._look_at_clock)

    def _lose(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        asked, self._asked = self._asked, deque()
        for one in asked:
            if one.reply is not None and not one.reply.done():
                one.reply.set_exception(error)
        if connection is not None:
            self._given_up = connection
            connection.abort()
