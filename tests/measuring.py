"""Reads metrics as Prometheus would: from their text."""

from __future__ import annotations

from prometheus_client.registry import Collector

from machina.observability.exposition import expose


def series(text: bytes) -> dict[str, float]:
    """Every number of an exposition, under its name with its labels, as they stand there."""
    lines = (line.rpartition(" ") for line in text.decode().splitlines() if line[0] != "#")
    return {name: float(value) for name, _, value in lines}


def measured(source: Collector) -> dict[str, float]:
    """The same of what is counted in this process."""
    return series(expose(source))
