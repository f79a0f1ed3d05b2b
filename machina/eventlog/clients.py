"""Redis clients for the event log, with redis-py's dangerous defaults replaced."""

from __future__ import annotations

from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from machina.eventlog.direct import Commands, Direct
from machina.eventlog.protocol import Pooled, can_speak_to

COMMAND_CONNECTIONS: Final = 5
"""Of redis-py: rare commands, and subscriptions where they cannot be spoken by hand."""
BLOCKING_CONNECTIONS: Final = 2
COMMAND_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 2.0


class LogClient(Redis):
    """redis-py for what is rare, and one connection spoken by hand for what every event needs."""

    commands: Commands
    """Set when it is made."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes both."""
        await self.commands.aclose()
        await super().aclose(close_connection_pool)


def commands_of(client: Redis) -> Commands:
    """The quickest way to the client's server; for a client made elsewhere, redis-py's own."""
    return client.commands if isinstance(client, LogClient) else Pooled(client)


def make_log_clients(url: str) -> tuple[LogClient, LogClient]:
    """A client for commands and one for reads that block; nothing is connected yet.

    Both keep a constant number of connections and wait for a free one instead of failing. Neither
    retries by itself: whoever calls knows whether a command may be sent twice. Commands give up
    after five seconds; blocking reads bring their own time limits. Close both with `aclose`.
    """
    return (
        _make_client(url, COMMAND_CONNECTIONS, COMMAND_SECONDS),
        _make_client(url, BLOCKING_CONNECTIONS, None),
    )


def _make_client(url: str, connections: int, seconds: float | None) -> LogClient:
    options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=COMMAND_SECONDS,
        socket_timeout=seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # the same speed as 3, and no handshake that older servers refuse
        driver_info=None,  # saves two commands per connection
        **options,
    )
    client = cast(LogClient, LogClient.from_pool(pool))
    client.commands = Direct(client) if can_speak_to(client) else Pooled(client)
    return client
