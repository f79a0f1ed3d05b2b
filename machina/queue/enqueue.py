"""The sender's half of the queue: wakes a worker for a run, by actor name, without blocking."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import structlog
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from machina.errors import QueueAmbiguous, QueueDown
from machina.ids import RunId
from machina.queue import keys
from machina.queue.dispatch import Script, enqueue_arguments, load_dispatch_script
from machina.queue.names import Queue, actor_name

__all__ = ["Enqueuer", "QueueAmbiguous", "make_queue_client"]

log = structlog.get_logger(__name__)

CONNECTIONS: Final = 8
ANSWER_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 2.0

_REFUSED_BY_ANSWER: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.BusyLoadingError,
)
"""Answers of a server that redis-py words as lost connections."""


def make_queue_client(url: str) -> Redis:
    """A client for `Enqueuer`: at most 8 connections, waits bounded, no retries.

    A repeated send would be a second message; the caller decides about that, not the client.
    """
    options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # no handshake that older servers refuse
        driver_info=None,  # saves two commands per connection
        **options,
    )
    return Redis.from_pool(pool)


class Enqueuer:
    """Writes messages as Dramatiq writes them and rings the bell of their queue.

    `client` needs finite socket timeouts: they bound how long a call takes.
    """

    def __init__(self, client: Redis, prefix: str) -> None:
        self._client = client
        self._namespace = keys.namespace(prefix)
        self._script: Script | None = None

    async def enqueue_run(self, run_id: RunId, queue: Queue) -> None:
        """Wakes a worker of `queue` for a run: one round trip.

        Raises:
            QueueAmbiguous: it was sent and the answer was lost; the message may be queued.
            QueueDown: it was certainly not queued.
        """
        if self._script is None:
            self._script = await asyncio.to_thread(load_dispatch_script)
        message_id = str(uuid4())
        data = encode_message(run_id, queue, message_id, str(uuid4()), int(time.time() * 1000))
        arguments = (1, self._namespace, *enqueue_arguments(queue, message_id, data))
        ring = ("ZADD", keys.bell(self._namespace, queue), *_flat(keys.RUNG))
        try:
            await self._exchange([("EVALSHA", self._script.sha, *arguments), ring])
        except exceptions.NoScriptError:  # a Redis that was restarted or promoted
            try:
                await self._exchange([("EVAL", self._script.text, *arguments), ring])
            except exceptions.ResponseError as refused:
                raise _down(refused) from refused
        except exceptions.ResponseError as refused:
            raise _down(refused) from refused

    async def _exchange(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Sends the commands at once. Raises what the first is answered, `QueueDown` if it is lost.

        The connection is handled by hand because only then is it known whether anything was sent.
        """
        pool = self._client.connection_pool
        try:
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py
        except (exceptions.RedisError, OSError) as unreachable:
            raise _down(unreachable) from unreachable
        try:
            await connection.send_packed_command(
                connection.pack_commands(commands), check_health=False
            )
            await connection.read_response()
            await self._read_rest(connection, len(commands) - 1)
        except _REFUSED_BY_ANSWER as refused:
            raise _down(refused) from refused
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as lost:
            raise QueueAmbiguous(
                f"The queue's Redis did not answer ({lost}); the run may have been queued."
            ) from lost
        except exceptions.ResponseError:
            # The answers to the rest are still under way, and a Redis that became a replica
            # refuses for ever on this connection: a new one finds the new primary.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    async def _read_rest(self, connection: Any, count: int) -> None:
        """A bell that was not rung only delays: an idle worker looks by itself in time."""
        try:
            for _ in range(count):
                await connection.read_response()
        except exceptions.RedisError as error:
            log.warning("queue.bell_failed", error=str(error))
            await connection.disconnect(nowait=True)


def encode_message(
    run_id: RunId, queue: Queue, redis_id: str, message_id: str, milliseconds: int
) -> bytes:
    """The message as Dramatiq encodes it, to the byte; `milliseconds` since the epoch."""
    return json.dumps(
        {
            "queue_name": queue,
            "actor_name": actor_name(queue),
            "args": [run_id],
            "kwargs": {},
            "options": {"redis_message_id": redis_id},
            "message_id": message_id,
            "message_timestamp": milliseconds,
        },
        separators=(",", ":"),
    ).encode()


def _flat(members: dict[str, int]) -> list[str | int]:
    return [part for member, score in members.items() for part in (score, member)]


def _down(error: Exception) -> QueueDown:
    return QueueDown(f"The queue's Redis did not take the run ({error}); try again later.")
