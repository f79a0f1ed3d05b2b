"""The Redis client of the event log, with redis-py's dangerous defaults replaced."""

from __future__ import annotations

from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from machina.eventlog.direct import Commands, Direct
from machina.eventlog.protocol import (
    OnLost,
    OnReply,
    Pooled,
    RedisProtocol,
    can_speak_to,
    connect,
)

MOST_CONNECTIONS: Final = 5
"""Of redis-py: rare commands, and subscriptions where they cannot be spoken by hand."""
COMMAND_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 2.0


class LogClient(Redis):
    """redis-py for what is rare, connections spoken by hand for what every event needs."""

    commands: Commands
    """The quickest way to the server. Set when the client is made."""
    by_hand: list[RedisProtocol]
    """The connections spoken by hand; those that are gone are let go at the next one."""

    @property
    def can_be_spoken_to(self) -> bool:
        """Whether `connect` works with this server."""
        return can_speak_to(self.connection_pool)

    async def connect(self, on_reply: OnReply, on_lost: OnLost) -> tuple[RedisProtocol, int]:
        """A new connection by hand; see `protocol.connect`. Whoever opens it closes it."""
        opened = await connect(self.connection_pool.connection_kwargs, on_reply, on_lost)
        self.by_hand = [one for one in self.by_hand if not one.is_closed] + [opened[0]]
        return opened

    @property
    def spoken_connections(self) -> int:
        """How many connections are open besides those of redis-py."""
        return sum(not one.is_closed for one in self.by_hand)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes the connection of `commands` and those of redis-py."""
        await self.commands.aclose()
        await super().aclose(close_connection_pool)


def commands_of(client: Redis) -> Commands:
    """The quickest way to the client's server; for a client made elsewhere, redis-py's own."""
    return client.commands if isinstance(client, LogClient) else Pooled(client)


def make_log_client(url: str) -> LogClient:
    """A client that keeps a constant number of connections; nothing is connected yet.

    It waits for a free connection instead of failing, and gives up on a command after five seconds.
    It does not retry by itself: whoever calls knows whether a command may be sent twice. Close it
    with `aclose`.
    """
    options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=MOST_CONNECTIONS,
        timeout=COMMAND_SECONDS,
        socket_timeout=COMMAND_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # the same speed as 3, and no handshake that older servers refuse
        driver_info=None,  # saves two commands per connection
        **options,
    )
    client = cast(LogClient, LogClient.from_pool(pool))
    client.by_hand = []
    seconds = pool.connection_kwargs["socket_timeout"]
    direct = client.can_be_spoken_to
    client.commands = Direct(client.connect, seconds) if direct else Pooled(client)
    return client
