"""Times small pieces of code against each other, interleaved, so that noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

LEAST_SECONDS = 0.05


def interleave(pieces: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Microseconds per call by name: the median of `rounds` rounds."""
    counts = {name: _calls_for(piece) for name, piece in pieces.items()}
    times: dict[str, list[float]] = {name: [] for name in pieces}
    for _ in range(rounds):
        for name, piece in pieces.items():
            times[name].append(_time(piece, counts[name]) / counts[name])
    return {name: median(values) * 1e6 for name, values in times.items()}


def _calls_for(piece: Callable[[], object]) -> int:
    count = 1
    while (took := _time(piece, count)) < LEAST_SECONDS:
        count = max(count * 2, round(count * LEAST_SECONDS / max(took, 1e-9)))
    return count


def _time(piece: Callable[[], object], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        piece()
    return time.process_time() - began
