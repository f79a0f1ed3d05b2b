"""Cancel signals: a hint to whoever executes a run, beside the log, because a log has one writer.

A signal can be lost. The request to cancel is in the run's record; the signal only saves the time
until the record is looked at again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import structlog
from redis.asyncio import Redis

from machina.eventlog.asking import ask
from machina.eventlog.backoff import Backoff, make_rng
from machina.eventlog.keys import LogKeys
from machina.eventlog.listening import listen
from machina.ids import RunId, is_object_id

log = structlog.get_logger(__name__)

QUIET_SECONDS: Final = 5.0
_CANCEL: Final = "cancel:"


async def ring_cancel(client: Redis, keys: LogKeys, run_id: RunId) -> None:
    """Tells every worker that this run is to be cancelled.

    Raises:
        redis.exceptions.RedisError: Redis did not take it; the record still holds the request.
    """
    await ask(client.publish(keys.signals, f"{_CANCEL}{run_id}"))


class CancelListener:
    """Hears the cancel signals; one per worker process, on one connection."""

    def __init__(
        self,
        client: Redis,
        keys: LogKeys,
        on_cancel: Callable[[RunId], None],
        *,
        on_connected: Callable[[], None] = lambda: None,
        quiet_seconds: float = QUIET_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        """`on_cancel` gets the ids of all cancelled runs, also of those executed elsewhere.

        `on_connected` is called after every (re)connect: signals before it may have been missed.
        """
        self._client = client
        self._keys = keys
        self._on_cancel = on_cancel
        self._on_connected = on_connected
        self._quiet_seconds = quiet_seconds
        self._backoff = Backoff(rng or make_rng())

    async def run(self) -> None:
        """Listens until cancelled; waits out an absent Redis."""
        await listen(
            self._client,
            self._keys.signals,
            self._hear,
            on_connected=self._on_connected,
            quiet_seconds=self._quiet_seconds,
            backoff=self._backoff,
        )

    def _hear(self, data: bytes) -> None:
        text = data.decode("ascii", "replace")
        run_id = text.removeprefix(_CANCEL)
        if text.startswith(_CANCEL) and is_object_id(run_id):
            self._on_cancel(RunId(run_id))
        else:
            log.warning("signal.unknown", signal=text[:80])
