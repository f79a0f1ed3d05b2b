"""What the load client is told: where to connect, how many streams, how each must look."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Script:
    """How the scripted model answers: `tokens` pieces, `delay_ms` apart, after `first_ms`."""

    tokens: int
    delay_ms: int = 0
    first_ms: int = 0

    @property
    def directive(self) -> str:
        """The directive as the scripted model reads it."""
        return f"[[script: tokens={self.tokens} delay_ms={self.delay_ms} first_ms={self.first_ms}]]"

    @property
    def answer(self) -> str:
        """The whole text."""
        return " ".join(f"tok-{index}" for index in range(self.tokens))


@dataclass(frozen=True, slots=True)
class Target:
    """Where streams are started, and how its events must look."""

    name: str
    port: int
    path: str
    key: str = ""
    stamped: bool = False
    """The pieces of the answer are not words but the time they were made, in monotonic ns."""


@dataclass(frozen=True, slots=True)
class Load:
    """Streams to open at once, spread over `ramp_seconds`."""

    target: Target
    streams: int
    ramp_seconds: float
    script: Script


@dataclass(frozen=True, slots=True)
class Series:
    """One stream after the other, in turn at several targets, `gap_seconds` apart."""

    targets: tuple[Target, ...]
    samples: int
    gap_seconds: float
    script: Script


def request_bytes(target: Target, script: Script) -> bytes:
    """The request that starts a stream."""
    message = {"role": "user", "content": script.directive}
    body = json.dumps({"messages": [message]}).encode()
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
        f"Authorization: Bearer {target.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def to_line(command: str, order: Load | Series | None = None, **more: Any) -> bytes:
    """One line of the client's standard input."""
    fields = asdict(order) if order is not None else {}
    return json.dumps({"do": command, **fields, **more}).encode() + b"\n"


def read_load(fields: dict[str, Any]) -> Load:
    """The order of a line."""
    return Load(
        target=Target(**fields["target"]),
        streams=fields["streams"],
        ramp_seconds=fields["ramp_seconds"],
        script=Script(**fields["script"]),
    )


def read_series(fields: dict[str, Any]) -> Series:
    """The order of a line."""
    return Series(
        targets=tuple(Target(**target) for target in fields["targets"]),
        samples=fields["samples"],
        gap_seconds=fields["gap_seconds"],
        script=Script(**fields["script"]),
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """Nearest-rank percentiles of many values, all in one unit."""

    count: int
    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Self:
        """The spread of at least one value.

        Raises:
            ValueError: there is none.
        """
        if not values:
            raise ValueError("There is nothing to take percentiles of.")
        ordered = sorted(values)
        last = len(ordered) - 1
        p50, p99 = (ordered[min(last, int(len(ordered) * share))] for share in (0.50, 0.99))
        return cls(len(ordered), round(p50, 3), round(p99, 3), round(ordered[-1], 3))
