"""The composition root: opens what a process shares, in order, and closes it in reverse.

API, worker and command line open the same things here; a process adds what only it needs. Nothing
runs by itself: `background` names the loops that the owner supervises.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from machina.auth import Keyring
from machina.breaker import Breaker, SharedBreaker
from machina.errors import SettingsInvalid
from machina.eventlog import (
    EventLogReader,
    EventLogWriter,
    LogClient,
    LogKeys,
    make_log_client,
    make_log_keys,
    ring_cancel,
)
from machina.eventlog.writer import always
from machina.ids import RunId, make_mint
from machina.observability.metrics import Metrics, make_metrics
from machina.observability.sampling import Readings, count_connections
from machina.observability.supervision import Background
from machina.queue.enqueue import Enqueuer, make_queue_client
from machina.runs.attempts import Attempts, LogLifetime
from machina.runs.lifecycle import RunLimits, Runs
from machina.runs.reaper import Reaper
from machina.runs.records import RunRecords
from machina.runs.viewing import Viewing
from machina.settings import Settings
from machina.store import Store, open_store

log = structlog.get_logger(__name__)

BREAKER: Final = "agent_streaming"
PROBE_SECONDS: Final = 30.0
"""How long a probe may take to its first event before another process may send one."""
REPAIR_MARGIN_SECONDS: Final = 3_600.0
"""A log outlives the longest run by the wait in the queue and by this, so that repairs find it."""


@dataclass(slots=True)
class Holder:
    """The name under which this process holds runs. A worker gets a new one with each lease."""

    name: str

    def __call__(self) -> str:
        return self.name


@dataclass(slots=True)
class Resources:
    """What a process opened. `draining` is set once, by the owner of the process."""

    settings: Settings
    store: Store
    keyring: Keyring
    queue_client: Redis
    log_client: LogClient
    log_keys: LogKeys
    writer: EventLogWriter
    reader: EventLogReader
    attempts: Attempts
    runs: Runs
    viewing: Viewing
    reaper: Reaper
    holder: Holder
    breaker: SharedBreaker
    metrics: Metrics
    draining: bool = False
    more_background: dict[str, Background] = field(default_factory=dict)
    """Loops that whoever composes the process adds to those of the API: its scheduler."""

    def readings(self, process: str) -> Readings:
        """What the gauges show of any process; API and worker add their own."""
        shown, connections = self.metrics, self.metrics.process.redis_connections
        return {
            shown.process.alive.labels(process): lambda: 1,
            shown.log.outbox_bytes: lambda: self.writer.pending_bytes,
            connections.labels(process, "log"): lambda: (
                count_connections(self.log_client) + self.log_client.spoken_connections
            ),
            connections.labels(process, "queue"): lambda: count_connections(self.queue_client),
        }

    @property
    def background(self) -> Mapping[str, Background]:
        """The loops an API process supervises; a worker picks its own."""
        return {
            "writer": self.writer.run,
            "reader": self.reader.run,
            "reaper": self.reaper.run,
            "breaker": self.breaker.run,
            **self.more_background,
        }


@asynccontextmanager
async def open_resources(
    settings: Settings,
    *,
    process: str,
    may_commit: Callable[[], bool] = always,
    metrics: Metrics | None = None,
) -> AsyncIterator[Resources]:
    """Opens everything a process shares.

    Args:
        process: `api` or `worker`; part of the name under which runs are held.
        may_commit: Whether the log may be written now; a worker passes its lease's freshness.
        metrics: Where everything here is counted; by default in metrics of its own.

    Raises:
        SettingsInvalid: no Redis is configured.
        StoreDown: the store cannot be opened.
    """
    if settings.redis_url is None or settings.log_redis_url is None:
        raise SettingsInvalid("REDIS_URL is not set; name the Redis of the queue.")
    metrics = metrics or make_metrics()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(settings, metrics))
        queue_client = make_queue_client(settings.redis_url)
        stack.push_async_callback(queue_client.aclose)
        log_client = make_log_client(settings.log_redis_url)
        stack.push_async_callback(log_client.aclose)
        holder = Holder(f"{process}-{socket.gethostname()}-{os.getpid()}")
        resources = _compose(settings, store, queue_client, log_client, holder, may_commit, metrics)
        stack.push_async_callback(resources.writer.aclose)
        yield resources


def _compose(
    settings: Settings,
    store: Store,
    queue_client: Redis,
    log_client: LogClient,
    holder: Holder,
    may_commit: Callable[[], bool],
    metrics: Metrics,
) -> Resources:
    log_keys = make_log_keys(settings.key_prefix)
    writer = EventLogWriter(
        log_client,
        log_keys,
        outbox_bytes=settings.outbox_bytes,
        outbox_seconds=settings.outbox_seconds,
        may_commit=may_commit,
        metrics=metrics,
    )
    reader = EventLogReader(log_client, log_keys, metrics=metrics)
    breaker = make_breaker(settings, queue_client)
    records = RunRecords(store.backend)
    attempts = Attempts(
        records,
        writer,
        Enqueuer(queue_client, settings.key_prefix),
        reader.inspect,
        store.now,
        LogLifetime(
            live=settings.queue_timeout_seconds + REPAIR_MARGIN_SECONDS,
            retention=settings.log_retention_seconds,
        ),
        metrics,
        on_infrastructure_failure=breaker.run_failed,
    )
    limits = RunLimits(
        stream=settings.stream_timeout_seconds,
        background=settings.run_timeout_seconds,
        queue=settings.queue_timeout_seconds,
    )

    async def ring(run_id: RunId) -> None:
        try:
            await ring_cancel(log_client, log_keys, run_id)
        except RedisError as error:  # the holder looks at its records every second as well
            log.warning("cancel.signal_failed", run_id=run_id, error=str(error))

    return Resources(
        settings=settings,
        store=store,
        keyring=Keyring(store.keys, clock=time.monotonic, now=store.now),
        queue_client=queue_client,
        log_client=log_client,
        log_keys=log_keys,
        writer=writer,
        reader=reader,
        attempts=attempts,
        runs=Runs(records, attempts, reader, ring, make_mint(), limits, holder=holder),
        viewing=Viewing(records, attempts, reader, holder=holder),
        reaper=Reaper(
            attempts,
            store.leases,
            holder=holder,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
        ),
        holder=holder,
        breaker=breaker,
        metrics=metrics,
    )


def make_breaker(settings: Settings, client: Redis | None = None) -> SharedBreaker:
    """The breaker of starting streams: of the whole fleet on `client`, else of this process."""
    local = Breaker(
        BREAKER,
        threshold=settings.circuit_breaker_threshold,
        cool_down_seconds=settings.breaker_cool_down_seconds,
        probe_seconds=PROBE_SECONDS,
        clock=time.monotonic,
    )
    return SharedBreaker(local, client, f"{settings.key_prefix}:breaker:{BREAKER}")
