"""The consumer of one queue: waits for the bell, reserves slots, fetches, recovers from Redis."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, Protocol, cast

import structlog
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import DecodeError
from redis.exceptions import RedisError

from machina.queue.names import PRIORITIES, Queue
from machina.queue.slots import Slots

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 1.0
LOOK_AGAIN_SECONDS: Final = 0.1
"""How often a consumer that may not fetch, or has its hands full, looks whether it may."""
WAIT_SECONDS: Final = 2.0
"""How long an idle consumer trusts the bell before it looks by itself. Looks are what an idle
worker spends its time on, and each is a heartbeat, so at least two fit into its timeout."""


Verdict = Literal["ack", "nack"]


def rank_of(queue_name: str) -> int:
    """How urgent a queue is, 0 the most."""
    return PRIORITIES.get(cast(Queue, queue_name), len(PRIORITIES))


class NotHandedOver(Exception):
    """Raised by an actor whose message started no run: the slot comes back."""


class MessageDropped(NotHandedOver):
    """The message makes no sense; it is acknowledged and forgotten."""


class HandOverRefused(NotHandedOver):
    """This process takes no more runs; the message goes back to its queue."""


class WakeUp(MessageProxy):
    """A fetched message, its id in Redis, and how its actor ended."""

    def __init__(self, message: Message[Any]) -> None:
        super().__init__(message)
        self.redis_id = str(message.options["redis_message_id"])
        self.error: BaseException | None = None

    def stuff_exception(self, exception: BaseException) -> None:
        """Called by Dramatiq when the actor raised."""
        self.error = exception
        super().stuff_exception(exception)


class Broker(Protocol):
    """What a consumer needs of its broker. Every call may raise `RedisError`, `ring` excepted."""

    slots: Slots
    may_fetch: Callable[[], bool]
    stopping: threading.Event

    def fetch(self, queue_name: str, most: int) -> list[bytes | None]: ...
    def settle(self, verdict: Verdict, queue_name: str, message_id: str) -> None: ...
    def give_back(self, queue_name: str, message_ids: Sequence[str]) -> None: ...
    def unacknowledged(self, queue_name: str) -> dict[str, bytes | None]: ...
    def wait_for_bell(self, queue_name: str, seconds: float) -> bool: ...
    def ring(self, queue_name: str) -> None: ...
    def show_life(self) -> None: ...


class DoorbellConsumer(Consumer):
    """Iterated by one thread; `ack`, `nack` and `requeue` are called by others.

    A message travels with a slot. The slot is the run's once the actor returned; in every other
    case it is freed here. `timeout`, which Dramatiq hands in, is how often its own threads wake.
    """

    def __init__(self, broker: Broker, queue_name: str, prefetch: int, timeout: int) -> None:
        self._broker = broker
        self._queue = queue_name
        self._rank = rank_of(queue_name)
        self._prefetch = prefetch
        self._fetched: deque[WakeUp] = deque()
        self._held: set[str] = set()
        self._owed: deque[tuple[Verdict, str]] = deque()
        self._settled = threading.Event()
        self._rung = False
        self._suspect = False
        self._failures = 0

    def __next__(self) -> WakeUp | None:
        """The next message; None after a wait of at most two seconds."""
        if self._broker.stopping.is_set():
            time.sleep(0.02)  # the thread is told to end at the same moment: no busy loop
            return None
        if not self._fetched:
            try:
                self._look()
            except RedisError as error:
                self._back_off(error)
        return self._fetched.popleft() if self._fetched else None

    def ack(self, message: MessageProxy) -> None:
        """Called when the actor is done with a message, however it ended."""
        wake_up = cast(WakeUp, message)
        if isinstance(wake_up.error, HandOverRefused):
            self.requeue([wake_up])
            return
        if wake_up.error is not None:
            self._broker.slots.release()
        self._let_go("ack", wake_up.redis_id)

    def nack(self, message: MessageProxy) -> None:
        """Sets aside a message that no actor here knows."""
        self._broker.slots.release()
        self._let_go("nack", cast(WakeUp, message).redis_id)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Gives messages back to the queue for other workers."""
        given_back = [cast(WakeUp, message).redis_id for message in messages]
        if not given_back:
            return
        self._broker.slots.release(len(given_back))
        try:
            self._broker.give_back(self._queue, given_back)
        except RedisError as error:  # they come back once this worker counts as dead
            log.warning("queue.give_back_failed", queue=self._queue, error=str(error))
        self._held.difference_update(given_back)
        self._settled.set()
        self._broker.ring(self._queue)

    def close(self) -> None:
        """Gives back what was fetched and not yet taken. The consumer may not be used again."""
        self._broker.slots.rest(self._rank)
        waiting = [self._fetched.popleft() for _ in range(len(self._fetched))]
        self.requeue(waiting)
        if self._rung and not waiting:
            self._broker.ring(self._queue)

    def _look(self) -> None:
        slots = self._broker.slots
        if not self._broker.may_fetch():
            slots.rest(self._rank)
            self._broker.stopping.wait(LOOK_AGAIN_SECONDS)
            return
        self._pay_owed()
        if self._suspect:
            self._recover()
        if not self._has_room():
            return
        slots.ask(self._rank)
        reserved = slots.reserve(self._prefetch - len(self._held), self._rank)
        if reserved == 0:
            self._wait_for_slot()
            return
        self._fetch(reserved)
        if not self._fetched:
            slots.rest(self._rank)
            self._rung = self._broker.wait_for_bell(self._queue, WAIT_SECONDS)

    def _has_room(self) -> bool:
        """Whether fewer messages than `prefetch` are on their way; waits for one to be settled."""
        self._settled.clear()
        if len(self._held) < self._prefetch:
            return True
        self._settled.wait(LOOK_AGAIN_SECONDS)
        return False

    def _wait_for_slot(self) -> None:
        if self._rung and self._broker.slots.is_full:
            self._rung = False
            self._broker.ring(self._queue)  # another worker may be free
        self._broker.show_life()
        stopping = self._broker.stopping.is_set
        self._broker.slots.wait_free(WAIT_SECONDS, self._rank, unless=stopping)

    def _fetch(self, reserved: int) -> None:
        taken = 0
        try:
            answer = self._broker.fetch(self._queue, reserved)
            for data in answer:
                wake_up = self._read(data)
                if wake_up is None:
                    self._suspect = True  # the id is inside what cannot be read: find it there
                    continue
                taken += 1
                self._held.add(wake_up.redis_id)
                self._fetched.append(wake_up)
            self._rung = len(answer) == reserved  # then there may be more
        finally:
            self._broker.slots.release(reserved - taken)
        if self._failures:
            log.info("queue.connection_restored", queue=self._queue)
            self._failures = 0

    def _read(self, data: bytes | None) -> WakeUp | None:
        """The message, or None for one that Dramatiq's threads could not handle."""
        if data is None:
            return None
        try:
            wake_up = WakeUp(Message.decode(data))
        except (DecodeError, KeyError, TypeError):
            return None
        return wake_up if wake_up.queue_name == self._queue else None

    def _recover(self) -> None:
        """Finds the messages that Redis counts as held by us and that we do not know.

        Either the answer to a fetch was lost, or the message could not be read.
        """
        counted = self._broker.unacknowledged(self._queue)
        for redis_id in counted.keys() - self._held:
            data = counted[redis_id]
            if self._read(data) is not None:
                self._broker.give_back(self._queue, [redis_id])
                continue
            self._broker.settle("nack", self._queue, redis_id)
            if data is not None:
                log.warning("message.malformed", queue=self._queue, size=len(data))
        self._suspect = False

    def _let_go(self, verdict: Verdict, redis_id: str) -> None:
        try:
            self._broker.settle(verdict, self._queue, redis_id)
        except RedisError as error:
            log.warning("queue.ack_postponed", queue=self._queue, error=str(error))
            self._owed.append((verdict, redis_id))
            return
        self._held.discard(redis_id)
        self._settled.set()

    def _pay_owed(self) -> None:
        while self._owed:
            verdict, redis_id = self._owed[0]
            self._broker.settle(verdict, self._queue, redis_id)
            self._owed.popleft()
            self._held.discard(redis_id)

    def _back_off(self, error: RedisError) -> None:
        self._broker.slots.rest(self._rank)
        self._suspect = True
        self._failures += 1
        if self._failures == 1:
            log.warning("queue.connection_lost", queue=self._queue, error=str(error))
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE_SECONDS)
        self._broker.stopping.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads load
