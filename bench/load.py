"""Drives the load client and reads the CPU clocks around a window of steady streaming."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from bench.deployments import Deployment
from bench.machine import cpu_seconds
from bench.plan import Load, Script, Series, Spread, to_line
from bench.processes import ROOT, python

SETTLE_SECONDS: Final = 1.0
"""From the end of the ramp to the window."""
SATURATED: Final = 0.85
"""A client busier than this limits what it measures."""


class Wrong(AssertionError):
    """A stream was not as it must be: an event lost, repeated, out of order, or no single end."""


class LoadClient:
    """The client's process. Made by `running_client`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            python("-m", "bench.client"), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, line: bytes) -> None:
        """Gives an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The answer to the last order; blocks."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The load client ended; its message stands above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def running_client() -> Iterator[LoadClient]:
    """A client process for as long as the block lasts."""
    client = LoadClient()
    try:
        yield client
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class Steady:
    """Streams that all run at one pace for as long as is measured."""

    streams: int
    per_second: float
    """Pieces of the answer per stream and second."""
    ramp_seconds: float
    window_seconds: float

    @property
    def offered(self) -> float:
        """Pieces per second over all streams."""
        return self.streams * self.per_second

    @property
    def script(self) -> Script:
        """Long enough for the first stream to outlast the window."""
        seconds = self.ramp_seconds + SETTLE_SECONDS + self.window_seconds + 1
        return Script(round(seconds * self.per_second) + 1, round(1000 / self.per_second))


@dataclass(frozen=True, slots=True)
class Measured:
    """What one window of one deployment gave."""

    name: str
    streams: int
    offered: float
    seconds: float
    events: int
    """Delivered within the window."""
    writes: int
    """Pieces of body in which they came."""
    all_events: int
    cpu: dict[str, float]
    """Seconds by part, within the window."""
    client_share: float
    """Of one core, used by the load client."""
    first_ms: Spread
    lag_ms: Spread
    latency_ms: Spread | None

    @property
    def delivered(self) -> float:
        """Events per second."""
        return self.events / self.seconds

    def cost(self, part: str | None = None) -> float:
        """CPU per delivered event in µs: of one part, or of all."""
        seconds = sum(self.cpu.values()) if part is None else self.cpu.get(part, 0.0)
        return seconds * 1e6 / max(self.events, 1)


def measure(client: LoadClient, deployment: Deployment, steady: Steady) -> Measured:
    """Opens the streams, waits until all run, reads the clocks, and judges every stream.

    Raises:
        Wrong: a stream was not whole.
    """
    load = Load(deployment.target, steady.streams, steady.ramp_seconds, steady.script)
    client.send(to_line("load", load))
    time.sleep(steady.ramp_seconds + SETTLE_SECONDS)
    since, cpu_before, client_before = _snapshot(client, deployment)
    time.sleep(steady.window_seconds)
    until, cpu_after, client_after = _snapshot(client, deployment)
    client.answer()
    report = ask_report(client, since, until, f"{deployment.name}, {steady.streams} streams")
    seconds = (until - since) / 1e9
    return Measured(
        name=deployment.name,
        streams=steady.streams,
        offered=steady.offered,
        seconds=seconds,
        events=report["events_in_window"],
        writes=report["writes_in_window"],
        all_events=report["events"],
        cpu={part: cpu_after[part] - cpu_before[part] for part in cpu_after},
        client_share=(client_after - client_before) / seconds,
        first_ms=_spread(report["first_ms"]),
        lag_ms=_spread(report["lag_ms"]),
        latency_ms=_spread(report["latency_ms"]) if report["latency_ms"] else None,
    )


def ask_report(client: LoadClient, since: int, until: int, what: str) -> dict[str, Any]:
    """What the client saw. Raises `Wrong` when it complains of any stream."""
    client.send(to_line("report", since=since, until=until))
    report = client.answer()
    check(report, what)
    return report


def check(report: dict[str, Any], what: str) -> None:
    """Raises `Wrong` when a report holds a complaint."""
    if report["complaint_count"]:
        shown = "; ".join(report["complaints"][:3])
        raise Wrong(f"{what}: {report['complaint_count']} complaints: {shown}")


def run_series(client: LoadClient, order: Series) -> dict[str, list[float]]:
    """Times to the first event in ms by target. Raises `Wrong`."""
    client.send(to_line("series", order))
    report = client.answer()
    check(report, "series")
    times: dict[str, list[float]] = report["first_ms"]
    return times


def _snapshot(client: LoadClient, deployment: Deployment) -> tuple[int, dict[str, float], float]:
    return time.monotonic_ns(), deployment.cpu(), cpu_seconds(client.pid)


def _spread(fields: dict[str, Any]) -> Spread:
    return Spread(**fields)
