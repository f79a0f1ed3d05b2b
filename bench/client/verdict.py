"""Judges one stream after it ended: no event lost, repeated or out of order, one end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from bench.client.connection import OK, Stream
from bench.plan import Script

MS = 1e-6
"""Milliseconds per nanosecond."""


@dataclass(slots=True)
class Seen:
    """What a stream gave."""

    arrivals: list[int] = field(default_factory=list)
    """Of every event, in monotonic nanoseconds."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of stamped pieces, from making to arrival; as many as there are pieces."""
    piece_arrivals: list[int] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def judge(stream: Stream, script: Script, *, stamped: bool) -> Seen:
    """What came, and everything that is wrong with it."""
    seen = Seen()
    if stream.status != OK or not stream.complete:
        said = b"".join(data for _, data in stream.pieces)[:200]
        seen.complaints.append(
            f"status {stream.status}, complete {stream.complete}, said {said.decode()!r}"
        )
        return seen
    said: list[str] = []
    ends = 0
    for arrival, line in _lines(stream):
        event = orjson.loads(line)
        seen.arrivals.append(arrival)
        expected = f"1-{len(seen.arrivals)}"
        if event["id"] != expected:
            seen.complaints.append(f"id {event['id']} in place of {expected}")
        if ends:
            seen.complaints.append(f"{event['type']} after the end")
        if event["type"] == "done":
            ends += 1
            if event["metadata"]["status"] != "executed":
                seen.complaints.append(f"ended as {event['metadata']['status']}")
        elif event["type"] == "content" and event["metadata"].get("partial"):
            said.append(event["content"])
            seen.piece_arrivals.append(arrival)
            if stamped:
                seen.latencies_ms.append((arrival - int(event["content"])) * MS)
        elif event["type"] == "error":
            seen.complaints.append(f"error {event['content']}")
    if ends != 1:
        seen.complaints.append(f"{ends} ends")
    if len(said) != script.tokens or not (stamped or "".join(said) == script.answer):
        seen.complaints.append(f"{len(said)} pieces of {script.tokens}, or other words")
    return seen


def _lines(stream: Stream) -> Iterator[tuple[int, bytes]]:
    """Whole lines with the arrival of their last byte; heartbeats are passed over."""
    rest = b""
    for arrival, data in stream.pieces:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line:
                yield arrival, line
    if rest:
        raise ValueError(f"The stream ended within a line: {rest[:80]!r}")
