"""The worker's half of the queue: Dramatiq's Redis broker with a doorbell instead of polling.

A sender rings the queue's bell; an idle consumer blocks on it for at most two seconds and then
looks by itself, so a lost bell costs that and nothing else. A consumer fetches only as many
messages as it holds reserved slots for. Dramatiq's scripts stay untouched; its version is pinned.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import redis
import structlog
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from machina.queue import keys
from machina.queue.consumer import DoorbellConsumer, Verdict, rank_of
from machina.queue.slots import Slots

log = structlog.get_logger(__name__)

HEARTBEAT_TIMEOUT_MS: Final = 5_000
"""Silence after which what a broker fetched and did not acknowledge goes back to its queue."""
DEAD_MESSAGE_TTL_MS: Final = 7 * 86_400_000
MAINTENANCE_SECONDS: Final = 5.0
SIGN_OF_LIFE_SECONDS: Final = 2.0
CONNECTIONS: Final = 24
"""Four consumers, eight threads that acknowledge, and room; never one per run."""
ANSWER_SECONDS: Final = 5.0
"""Longer than any blocking wait for a bell."""
CONNECT_SECONDS: Final = 2.0


def always() -> bool:
    """The answer of a worker that may fetch at any time."""
    return True


def make_broker(
    url: str, prefix: str, *, slots: Slots, may_fetch: Callable[[], bool] = always
) -> DoorbellBroker:
    """A broker on the Redis at `url`; connects when it is used.

    Nothing is fetched while `may_fetch` says no: a worker without a lease could only lose wake-ups.
    """
    options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=ANSWER_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        # A fetch that redis-py repeats by itself loses the messages of its first answer: the
        # consumer handles errors, and looks for what they may have hidden.
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # no handshake that older servers refuse
        driver_info=None,  # saves two commands per connection
        **options,
    )
    client = redis.Redis(connection_pool=pool)
    return DoorbellBroker(
        client, namespace=keys.namespace(prefix), slots=slots, may_fetch=may_fetch
    )


class DoorbellBroker(RedisBroker):
    """Dramatiq's broker without delay queues and without middleware; see the module."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        namespace: str,
        slots: Slots,
        may_fetch: Callable[[], bool] = always,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # Dramatiq's Redis half has no types
            client=client,
            middleware=[],
            namespace=namespace,
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
            dead_message_ttl=DEAD_MESSAGE_TTL_MS,
        )
        self.slots = slots
        self.may_fetch = may_fetch
        self.stopping = threading.Event()
        self._maintained = threading.local()
        self._beaten = 0.0

    @property
    def consumer_class(self) -> type[DoorbellConsumer]:
        """What fetches: one per queue, each in a thread of its own."""
        return DoorbellConsumer

    def declare_queue(self, queue_name: str) -> None:
        """Declares a queue and, other than the base class, no queue of delayed messages for it.

        From here on less urgent queues wait until this one has been looked at: declare only what a
        worker on this broker consumes.
        """
        if queue_name not in self.queues:
            self.slots.ask(rank_of(queue_name))
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueues a message and rings the bell.

        Raises:
            ValueError: a delay was asked for; there are no delay queues.
        """
        if delay is not None:
            raise ValueError("this broker keeps no delayed messages: schedule the run instead")
        return super().enqueue(message)

    def do_enqueue(self, queue_name: str, message_id: str, data: bytes) -> None:
        """Message and bell in one round trip; called by the base class."""
        script = self.scripts["dispatch"]
        arguments = (
            *("enqueue", int(time.time() * 1000), queue_name, self.broker_id),
            *(self.heartbeat_timeout, self.dead_message_ttl, 0, 1, message_id, data),
        )
        for last_try in (False, True):
            with self.client.pipeline(transaction=False) as pipe:
                pipe.evalsha(script.sha, 1, self.namespace, *arguments)
                pipe.zadd(keys.bell(self.namespace, queue_name), keys.RUNG)
                answer = pipe.execute(raise_on_error=False)[0]
            if not isinstance(answer, Exception):
                return
            if last_try or not isinstance(answer, NoScriptError):
                raise answer
            self.client.script_load(script.script)

    def fetch(self, queue_name: str, most: int) -> list[bytes | None]:
        """Up to `most` messages, from now on counted as held by this broker."""
        answer: list[bytes | None] = self.do_fetch(queue_name, most)
        return answer

    def settle(self, verdict: Verdict, queue_name: str, message_id: str) -> None:
        """Ends the journey of a fetched message: done, or set aside for a person to look at."""
        settle: Callable[[str, str], None] = self.do_ack if verdict == "ack" else self.do_nack
        settle(queue_name, message_id)

    def give_back(self, queue_name: str, message_ids: Sequence[str]) -> None:
        """Puts fetched messages back into their queue, behind the others."""
        self.do_requeue(queue_name, *message_ids)

    def unacknowledged(self, queue_name: str) -> dict[str, bytes | None]:
        """What Redis counts as held by this broker: ids, and messages where they still exist."""
        held = keys.unacknowledged(self.namespace, queue_name, self.broker_id)
        members = cast(set[bytes], self.client.smembers(held))
        ids = [member.decode() for member in members]
        if not ids:
            return {}
        found = self.client.hmget(keys.messages(self.namespace, queue_name), ids)
        return dict(zip(ids, found, strict=True))

    def wait_for_bell(self, queue_name: str, seconds: float) -> bool:
        """Whether the bell rang within `seconds`; also true when this broker stops."""
        bell = keys.bell(self.namespace, queue_name)
        stop = keys.stop_bell(self.namespace, queue_name, self.broker_id)
        return self.client.bzpopmin([bell, stop], timeout=seconds) is not None

    def ring(self, queue_name: str) -> None:
        """Says that there may be messages that this worker does not take. Best effort."""
        try:
            self.client.zadd(keys.bell(self.namespace, queue_name), keys.RUNG)
        except RedisError as error:
            log.debug("queue.bell_failed", queue=queue_name, error=str(error))

    def show_life(self) -> None:
        """Signs the heartbeat of a worker that is full and so fetches nothing."""
        now = time.monotonic()
        if now - self._beaten >= SIGN_OF_LIFE_SECONDS:
            self._beaten = now
            beat = {self.broker_id: int(time.time() * 1000)}
            self.client.zadd(keys.heartbeats(self.namespace), beat)

    def stop_fetching(self) -> None:
        """Makes every consumer return at once, and give no message out any more."""
        self.stopping.set()
        self.slots.interrupt()
        try:
            with self.client.pipeline(transaction=False) as pipe:
                for queue in self.queues:
                    wake = keys.stop_bell(self.namespace, queue, self.broker_id)
                    pipe.zadd(wake, keys.RUNG)
                    pipe.expire(wake, 10)
                pipe.execute()
        except RedisError as error:  # then nobody blocks on this Redis for long
            log.debug("queue.stop_bell_failed", error=str(error))

    def close(self) -> None:
        """Signs off and disconnects. What is still unacknowledged goes to others in seconds."""
        try:
            self._sign_off()
        except RedisError as error:
            log.debug("queue.sign_off_failed", error=str(error))
        self.client.connection_pool.disconnect()

    def _sign_off(self) -> None:
        owed: Sequence[str] = [
            keys.unacknowledged(self.namespace, queue, self.broker_id) for queue in self.queues
        ]
        if not owed or self.client.exists(*owed) == 0:
            self.client.zrem(keys.heartbeats(self.namespace), self.broker_id)

    def _should_do_maintenance(self, command: str) -> int:
        """Once in a while per queue, rather than by chance per call: maintenance is not cheap.

        A queue has one consumer thread, and only that thread fetches from it.
        """
        now = time.monotonic()
        if command != "fetch" or now < getattr(self._maintained, "due", 0.0):
            return 0
        self._maintained.due = now + MAINTENANCE_SECONDS
        return 1
