"""Once a second: reads what a process holds into its gauges, and publishes what it counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from prometheus_client import Gauge

from machina.observability.metrics import Metrics

EVERY_SECONDS: Final = 1.0

Readings = Mapping[Gauge, Callable[[], float]]
"""Gauges, and where each reads its number: quick, and never an error."""


class Pooled(Protocol):
    """A Redis client of either kind."""

    @property
    def connection_pool(self) -> Any: ...


def count_connections(client: Pooled) -> int:
    """The connections that a client keeps, idle ones included."""
    counts = client.connection_pool.get_connection_count()
    return sum(count for count, _ in counts)


class Sampler:
    """The readings of one process. `run` is supervised by the owner of the process."""

    def __init__(
        self, metrics: Metrics, readings: Readings, *, every_seconds: float = EVERY_SECONDS
    ) -> None:
        self._metrics = metrics
        self._readings = readings
        self._every = every_seconds

    def sample(self) -> None:
        """Reads and publishes once."""
        for gauge, read in self._readings.items():
            gauge.set(read())
        self._metrics.publish()

    async def run(self) -> None:
        """Samples until cancelled, and once more then."""
        try:
            while True:
                self.sample()
                await asyncio.sleep(self._every)
        finally:
            self.sample()
