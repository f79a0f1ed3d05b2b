"""How many runs one worker process may hold at once, and whose turn it is when slots are scarce."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Slots:
    """A counter of free places, shared by consumer threads and the event loop.

    A slot is reserved before a message is fetched and goes with the message to the run it starts;
    whoever ends that journey releases it. Queues have a rank, 0 the most urgent: while a queue
    asks, less urgent ones get nothing, so that under load the order of the queues holds.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError("a worker needs at least one slot")
        self.total = total
        self._in_use = 0
        self._asking: set[int] = set()
        self._closed = False
        self._changed = threading.Condition()

    @property
    def in_use(self) -> int:
        """Slots that are reserved or hold a run."""
        return self._in_use

    @property
    def is_full(self) -> bool:
        """Whether no slot is free for anybody."""
        return self._in_use >= self.total

    def ask(self, rank: int) -> None:
        """Announces that the queue of this rank may have messages: less urgent queues must wait."""
        with self._changed:
            self._asking.add(rank)

    def rest(self, rank: int) -> None:
        """Announces that the queue of this rank has nothing to fetch, or cannot fetch now."""
        with self._changed:
            if rank in self._asking:
                self._asking.discard(rank)
                self._changed.notify_all()

    def try_reserve(self, rank: int = 0) -> bool:
        """Reserves one slot if there is one and it is this rank's turn."""
        return self.reserve(1, rank) == 1

    def reserve(self, most: int, rank: int = 0) -> int:
        """Reserves up to `most` slots without waiting; returns how many, 0 included."""
        with self._changed:
            if not self._is_turn(rank):
                return 0
            count = min(most, self.total - self._in_use)
            self._in_use += count
            return count

    def release(self, count: int = 1) -> None:
        """Frees slots.

        Raises:
            ValueError: more were released than reserved, which is a defect of the caller.
        """
        with self._changed:
            if count > self._in_use:
                raise ValueError("a slot was released twice")
            self._in_use -= count
            if count:
                self._changed.notify_all()

    def wait_free(
        self, timeout: float, rank: int = 0, *, unless: Callable[[], bool] = lambda: False
    ) -> bool:
        """Waits up to `timeout` seconds until a slot is free and it is this rank's turn.

        False when the time is over, or when `unless` says so; `interrupt` makes waiters ask it.
        """
        with self._changed:
            self._changed.wait_for(lambda: unless() or self._is_turn(rank), timeout)
            return self._is_turn(rank)

    def interrupt(self) -> None:
        """Makes everybody who waits ask again whether to go on waiting."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Gives out no slot any more; releases still count."""
        self._closed = True

    def _is_turn(self, rank: int) -> bool:
        free = not self._closed and self._in_use < self.total
        return free and not any(other < rank for other in self._asking)
