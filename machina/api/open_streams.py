"""The register of the streams a process relays: one loop ends the slow, the old and the drained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

import structlog

from machina.observability.metrics import Metrics, make_metrics

log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 0.1
_RETRY_MS: Final = (500, 2_000)
"""When the client of a stream that we end should come back: at least, and how far it is spread."""


class Ending(StrEnum):
    """Why a stream ended."""

    DONE = "done"
    GONE = "client_gone"
    SLOW = "client_not_reading"
    DRAIN = "draining"
    AGE = "too_old"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """The times of a stream, in seconds: silence before a heartbeat, a write that does not go
    through, what the drain leaves to open streams, and their greatest age (None: any).
    """

    heartbeat: float
    send: float
    drain: float
    age: float | None = None


class Stream(Protocol):
    """What the register needs of a stream."""

    began: float
    """Loop time of its first byte."""
    sending_since: float | None
    """Loop time at which the write in progress began; None when there is none."""

    def end(self, ending: Ending) -> None:
        """Ends the stream now."""


class OpenStreams:
    """The streams of one process. `random` spreads the return of those that are sent away."""

    def __init__(
        self,
        limits: StreamLimits,
        *,
        is_draining: Callable[[], bool],
        random: Callable[[], float],
        metrics: Metrics | None = None,
    ) -> None:
        self.limits = limits
        self.is_draining = is_draining
        self.metrics = (metrics or make_metrics()).streams
        self.drained = asyncio.Event()
        """Set when the time that the drain leaves to open requests is over."""
        self._random = random
        self._open: set[Stream] = set()
        self._detached: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: Stream) -> None:
        """Notes a stream that begins."""
        self._open.add(stream)

    def discard(self, stream: Stream) -> None:
        """Forgets a stream that ended."""
        self._open.discard(stream)

    async def run(self) -> None:
        """Watches all streams until cancelled; supervised by the owner of the process."""
        loop = asyncio.get_running_loop()
        limits = self.limits
        pause = min(limits.send, limits.age or limits.send) / 4
        drained_at: float | None = None
        sweep_at = loop.time() + pause
        while True:
            await asyncio.sleep(min(_POLL_SECONDS, pause))
            now = loop.time()
            if drained_at is None and self.is_draining():
                drained_at = now + limits.drain
            if drained_at is not None and now >= drained_at:
                self.drained.set()
                self._end_all()
            elif now >= sweep_at:
                sweep_at = now + pause
                self._sweep(now)

    def detach(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs something that must outlive its request; a failure is logged."""
        task = asyncio.create_task(work)
        self._detached.add(task)
        task.add_done_callback(self._finished)

    async def settle(self, seconds: float) -> None:
        """Waits for detached work, before the process closes what it needs."""
        if self._detached:
            await asyncio.wait(tuple(self._detached), timeout=seconds)

    def retry_ms(self) -> int:
        """Milliseconds after which a client that is sent away should come back."""
        least, spread = _RETRY_MS
        return least + int(self._random() * spread)

    def _end_all(self) -> None:
        for stream in tuple(self._open):
            stream.end(Ending.DRAIN)

    def _sweep(self, now: float) -> None:
        limits = self.limits
        for stream in tuple(self._open):
            if stream.sending_since is not None and now - stream.sending_since >= limits.send:
                stream.end(Ending.SLOW)
            elif limits.age is not None and now - stream.began >= limits.age:
                stream.end(Ending.AGE)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._detached.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("stream.aftermath_failed", exc_info=error)
