"""What the attempts of a process have said and Redis has not yet acknowledged, within bounds."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from machina.eventlog.answers import MAX_LINE_BYTES, Answer, EventTooLarge, make_refusal
from machina.eventlog.script import Batch
from machina.events import Event, encode, is_terminal
from machina.ids import EventId, RunId

RUN_BYTES: Final = 262_144
"""Unacknowledged bytes of one attempt beyond which its `append` waits."""
CALL_ENTRIES: Final = 1_000
CALL_BYTES: Final = MAX_LINE_BYTES
"""One call of the script carries no more than this, so that Redis is never blocked for long."""


class _Line(NamedTuple):
    data: bytes
    terminal: bool
    at: float
    """When it was appended, by the monotonic clock."""


class Outbox:
    """The unacknowledged lines of all attempts of a process."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.logs: dict[AttemptLog, None] = {}
        self._ready: dict[AttemptLog, None] = {}
        self._filled = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_full(self) -> bool:
        """Whether every `append` of the process waits."""
        return self.bytes >= self.limit

    def add(self, log: AttemptLog, size: int) -> None:
        """Notes a new line of `log`."""
        self.bytes += size
        self._ready[log] = None
        self._filled.set()

    def release(self, size: int) -> None:
        """Notes that `size` bytes are acknowledged or dropped."""
        self.bytes -= size
        if not self.is_full:
            _wake(self._waiters)

    def wake_all(self) -> None:
        """Lets every waiting `append` look again."""
        _wake(self._waiters)

    async def wait_for_room(self) -> None:
        """Returns after a release; the caller looks again."""
        await _turn(self._waiters)

    async def wait_for_lines(self) -> None:
        """Returns once something can be taken."""
        await self._filled.wait()

    def offer_again(self) -> None:
        """Makes ready whatever is unacknowledged; after a failed call, or a restart."""
        self._ready = {log: None for log in self.logs if log.has_lines}
        if self._ready:
            self._filled.set()

    def take(self) -> list[tuple[AttemptLog, Batch]]:
        """The next call: what is ready, in turn, within the bounds of a call.

        Lines stay in the outbox until they are acknowledged, so a call may be lost at any point.
        """
        taken: list[tuple[AttemptLog, Batch]] = []
        entries, room = CALL_ENTRIES, CALL_BYTES
        while self._ready and entries > 0:
            log = next(iter(self._ready))
            batch, size = log.peek(entries, room)
            if not batch.lines:
                if log.has_lines:
                    break  # its next line is too large for what room is left
                del self._ready[log]
                continue
            del self._ready[log]
            taken.append((log, batch))
            entries -= len(batch.lines)
            room -= size
        if not self._ready:
            self._filled.clear()
        return taken

    def settle(self, log: AttemptLog, batch: Batch) -> None:
        """The lines of `batch` are in the log; what remains is ready for the next call."""
        log.acknowledge(batch)
        if log.has_lines:
            self._ready[log] = None
            self._filled.set()

    def overdue(self, before: float) -> Iterator[AttemptLog]:
        """Attempts whose oldest line was appended before a time of the monotonic clock."""
        return (log for log in list(self.logs) if log.oldest is not None and log.oldest < before)


class AttemptLog:
    """The log as the holder of one attempt writes it. Made by `EventLogWriter.open`."""

    def __init__(
        self,
        outbox: Outbox,
        run_id: RunId,
        attempt: int,
        *,
        live_ms: int,
        retention_ms: int,
        repair: bool,
        on_refused: Callable[[Answer], None] | None,
    ) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.refused: Answer | None = None
        """Why the log takes nothing more from this attempt, once it does not."""
        self._outbox = outbox
        self._live_ms = live_ms
        self._retention_ms = retention_ms
        self._repair = repair
        self._on_refused = on_refused
        self._lines: deque[_Line] = deque()
        self._bytes = 0
        self._seq = 0
        self._acknowledged = 0
        self._ended = False
        self._closed = False
        self._waiters: list[asyncio.Future[None]] = []
        outbox.logs[self] = None

    @property
    def last_id(self) -> EventId:
        """The id of the newest event appended here, acknowledged or not; seq 0 before the first."""
        return EventId(self.attempt, self._seq)

    async def append(self, event: Event) -> EventId:
        """Gives the event its id and queues it; waits only while too much is unacknowledged.

        Raises:
            AppendRefused: the log takes nothing more from this attempt, or has its terminal event.
            EventTooLarge: the line is longer than the log takes; nothing was appended.
        """
        self._raise_if_over()
        while self._bytes >= RUN_BYTES or self._outbox.is_full:
            if self._bytes >= RUN_BYTES:
                await _turn(self._waiters)
            else:
                await self._outbox.wait_for_room()
            self._raise_if_over()
        id = EventId(self.attempt, self._seq + 1)
        data = encode(id, event)
        if len(data) > MAX_LINE_BYTES:
            raise EventTooLarge(
                f"An event of {len(data)} bytes is too large for the event log; "
                f"at most {MAX_LINE_BYTES} are taken."
            )
        self._seq = id.seq
        self._ended = is_terminal(event.type)
        self._lines.append(_Line(data, self._ended, time.monotonic()))
        self._bytes += len(data)
        self._outbox.add(self, len(data))
        return id

    async def flush(self) -> None:
        """Waits until everything appended so far is acknowledged.

        Raises:
            AppendRefused: it was refused, or `close` dropped it.
        """
        target = self._seq
        while self._acknowledged < target:
            self._raise_if_dropped()
            await _turn(self._waiters)

    def close(self) -> None:
        """Forgets the attempt and what it has not sent. Harmless to repeat."""
        self._closed = True
        self._drop()

    def refuse(self, answer: Answer) -> None:
        """Ends the attempt's writing; wakes whoever waits and tells the owner, once."""
        if self.refused is not None or self._closed:
            return
        self.refused = answer
        if self._on_refused is not None:
            # Not at once, so that the owner cannot change the outbox under the commit loop; but
            # before those who wait here go on.
            asyncio.get_running_loop().call_soon(self._on_refused, answer)
        self._drop()

    @property
    def has_lines(self) -> bool:
        """Whether anything is unacknowledged."""
        return bool(self._lines)

    @property
    def oldest(self) -> float | None:
        """When the oldest unacknowledged line was appended, by the monotonic clock."""
        return self._lines[0].at if self._lines else None

    def peek(self, entries: int, room: int) -> tuple[Batch, int]:
        """The next lines within `entries` and `room` bytes, and their size. They stay here."""
        lines: list[bytes] = []
        size, terminal = 0, False
        for line in self._lines:
            if len(lines) == entries or size + len(line.data) > room:
                break
            lines.append(line.data)
            size += len(line.data)
            terminal = line.terminal
        return (
            Batch(
                self.run_id,
                self.attempt,
                self._acknowledged + 1,
                lines,
                terminal,
                self._repair,
                self._live_ms,
                self._retention_ms,
            ),
            size,
        )

    def acknowledge(self, batch: Batch) -> None:
        """Drops the lines of `batch`, which are in the log."""
        if self.refused is not None or self._closed:
            return
        size = 0
        for _ in batch.lines:
            size += len(self._lines.popleft().data)
        self._acknowledged += len(batch.lines)
        self._bytes -= size
        _wake(self._waiters)
        self._outbox.release(size)

    def _drop(self) -> None:
        size, self._bytes = self._bytes, 0
        self._lines.clear()
        self._outbox.logs.pop(self, None)
        self._outbox.release(size)
        _wake(self._waiters)
        self._outbox.wake_all()

    def _raise_if_dropped(self) -> None:
        if self.refused is not None:
            raise make_refusal(self.refused)
        if self._closed:
            raise make_refusal(Answer.CLOSED)

    def _raise_if_over(self) -> None:
        self._raise_if_dropped()
        if self._ended:
            raise make_refusal(Answer.CLOSED)


async def _turn(waiters: list[asyncio.Future[None]]) -> None:
    waiter = asyncio.get_running_loop().create_future()
    waiters.append(waiter)
    try:
        await waiter
    finally:
        if waiter in waiters:  # cancelled; else it was woken and taken out
            waiters.remove(waiter)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
