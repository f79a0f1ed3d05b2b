"""Group commit: one task sends whatever all attempts of the process have ready.

What arrives while a call is under way forms the next one. A call that fails, or whose answer is
lost, is sent again with the same ids until Redis answers; the script makes that harmless.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from machina.eventlog.answers import Answer, AppendRefused
from machina.eventlog.backoff import Backoff, make_rng
from machina.eventlog.keys import LogKeys
from machina.eventlog.outbox import AttemptLog, Outbox
from machina.eventlog.script import AppendScript, Batch, Verdict
from machina.eventlog.together import run_together
from machina.ids import RunId
from machina.observability.metrics import Metrics, make_metrics

__all__ = ["AttemptLog", "EventLogWriter"]

log = structlog.get_logger(__name__)

BUSY_RUNS: Final = 4
PACE_SECONDS: Final = 0.002
"""After a commit of that many runs the next one comes no sooner than this after it: commits, bells
and reads then carry many events each, and cost half as much per event. Fewer runs never wait."""
HOLD_SECONDS: Final = 0.05
"""How often a writer that may not commit looks whether it may again."""
CLOSE_SECONDS: Final = 2.0
"""How long `aclose` waits for acknowledgements."""


_NO_ROOM: Final = re.compile(r"\b(OOM|MISCONF) ")


def always() -> bool:
    """For processes that hold no lease."""
    return True


class EventLogWriter:
    """Writes the logs of all attempts a process holds. One per process, on one event loop."""

    def __init__(
        self,
        client: Redis,
        keys: LogKeys,
        *,
        outbox_bytes: int,
        outbox_seconds: float,
        may_commit: Callable[[], bool] = always,
        rng: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`client` must not retry by itself; `may_commit` says whether the lease is fresh.

        While `may_commit` is false nothing is sent: a process that slept past its lease must not
        write before it knows better.
        """
        self._script = AppendScript(client, keys)
        self._outbox = Outbox(outbox_bytes)
        self._outbox_seconds = outbox_seconds
        self._may_commit = may_commit
        self._backoff = Backoff(rng or make_rng())
        self._is_full = False
        self._running = False
        self._metrics = (metrics or make_metrics()).log

    async def run(self) -> None:
        """Commits until cancelled. If it raises, call it again: nothing is lost."""
        self._outbox.offer_again()
        self._running = True
        try:
            await run_together(commit=self._commit_for_ever(), watch=self._watch_outbox())
        finally:
            self._running = False

    def open(
        self,
        run_id: RunId,
        attempt: int,
        *,
        live_ttl_seconds: float,
        retention_seconds: float,
        on_refused: Callable[[Answer], None] | None = None,
        repair: bool = False,
    ) -> AttemptLog:
        """The log of an attempt this process has claimed. Close it when the attempt is over.

        The log expires `live_ttl_seconds` after its first entry, or `retention_seconds` after its
        terminal one. `repair` lets a closer write after an old terminal entry. `on_refused` is
        called once, from the event loop, when the log takes nothing more from this attempt.
        """
        return AttemptLog(
            self._outbox,
            run_id,
            attempt,
            live_ms=max(1, round(live_ttl_seconds * 1000)),
            retention_ms=max(1, round(retention_seconds * 1000)),
            repair=repair,
            on_refused=on_refused,
        )

    @property
    def pending_bytes(self) -> int:
        """What is appended and not yet acknowledged."""
        return self._outbox.bytes

    async def aclose(self) -> None:
        """Waits up to two seconds until everything is acknowledged, then closes every attempt.

        Call it while `run` still runs; without it, nothing can be sent.
        """
        open_logs = list(self._outbox.logs)
        if self._running and self._outbox.bytes:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    for attempt_log in open_logs:
                        with suppress(AppendRefused):
                            await attempt_log.flush()
        for attempt_log in open_logs:
            attempt_log.close()

    async def _commit_for_ever(self) -> None:
        while True:
            await self._outbox.wait_for_lines()
            await self._wait_for_lease()
            taken = self._outbox.take()
            if taken:
                sent = time.monotonic()
                await self._commit(taken)
                if len(taken) >= BUSY_RUNS:
                    await asyncio.sleep(sent + PACE_SECONDS - time.monotonic())

    async def _wait_for_lease(self) -> None:
        if self._may_commit():
            return
        log.warning("append.held", reason="the lease is not fresh")
        while not self._may_commit():  # noqa: ASYNC110  # a question to the lease, not an event
            await asyncio.sleep(HOLD_SECONDS)

    async def _commit(self, taken: Sequence[tuple[AttemptLog, Batch]]) -> None:
        sent = time.monotonic()
        try:
            verdicts = await self._script.commit([batch for _, batch in taken])
        except (RedisError, OSError) as error:
            # Ambiguous, or refused as a whole (out of memory, loading, read-only): the same ids
            # go out again. The outbox's age limit ends this.
            self._outbox.offer_again()
            self._metrics.commit_failures.inc()
            self._is_full = _has_no_room(error)
            if self._backoff.failures == 0:
                log.warning("append.delayed", error=repr(error), runs=len(taken))
            await asyncio.sleep(self._backoff.next_pause())
            return
        if self._backoff.failures:
            log.info("append.resumed", failures=self._backoff.failures)
            self._backoff.reset()
            self._is_full = False
        self._measure(taken, sent)
        for (attempt_log, batch), verdict in zip(taken, verdicts, strict=True):
            self._settle(attempt_log, batch, verdict)

    def _measure(self, taken: Sequence[tuple[AttemptLog, Batch]], sent: float) -> None:
        """Once per commit and never per entry; before what is acknowledged is forgotten."""
        now = time.monotonic()
        self._metrics.commit_seconds.observe(now - sent)
        self._metrics.append_seconds.observe(now - (taken[0][0].oldest or sent))
        self._metrics.entries.inc(sum(len(batch.lines) for _, batch in taken))

    def _settle(self, attempt_log: AttemptLog, batch: Batch, verdict: Verdict) -> None:
        if verdict.answer is Answer.DUP:
            self._metrics.answers.labels(verdict.answer).inc()
        if verdict.answer.is_success:
            self._outbox.settle(attempt_log, batch)
        else:
            self._refuse(attempt_log, verdict.answer, detail=verdict.detail, first=batch.first)

    async def _watch_outbox(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._outbox_seconds / 4))
            for attempt_log in self._outbox.overdue(time.monotonic() - self._outbox_seconds):
                self._refuse(attempt_log, Answer.FULL if self._is_full else Answer.OUTBOX)

    def _refuse(self, attempt_log: AttemptLog, answer: Answer, **fields: int | None) -> None:
        log.warning(
            "append.refused",
            run_id=attempt_log.run_id,
            attempt=attempt_log.attempt,
            answer=str(answer),
            **fields,
        )
        self._metrics.answers.labels(answer).inc()
        attempt_log.refuse(answer)


def _has_no_room(error: Exception) -> bool:
    """Whether Redis refused a write for want of memory, or because it cannot write its disk."""
    # Redis 6.2 puts the place in the script before the error's own words.
    return isinstance(error, OutOfMemoryError) or bool(_NO_ROOM.search(str(error)))
