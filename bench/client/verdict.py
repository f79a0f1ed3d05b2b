"""Judges one stream after it ended: no event lost, repeated or out of order, one end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from bench.client.connection import OK
from bench.plan import Script

MS = 1e-6
"""Milliseconds per nanosecond."""


class Answer(Protocol):
    """What a client kept of one stream; see `connection.Stream`."""

    status: int
    complete: bool
    pieces: list[tuple[int, bytes]]


@dataclass(slots=True)
class Seen:
    """What a stream gave."""

    arrivals: list[int] = field(default_factory=list)
    """Of every event, in monotonic nanoseconds."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of stamped pieces, from making to arrival; as many as there are pieces."""
    piece_arrivals: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """The pieces of the answer."""
    complaints: list[str] = field(default_factory=list)


def judge(stream: Answer, script: Script, *, stamped: bool) -> Seen:
    """What came, and everything that is wrong with it."""
    seen = Seen()
    if stream.status != OK or not stream.complete:
        answer = b"".join(data for _, data in stream.pieces)[:200].decode(errors="replace")
        seen.complaints.append(f"status {stream.status}, cut short, said {answer!r}")
        return seen
    ends = 0
    for arrival, line in _lines(stream):
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            seen.complaints.append(f"no event: {line[:80]!r}")
            continue
        seen.arrivals.append(arrival)
        expected = f"1-{len(seen.arrivals)}"
        if event["id"] != expected or ends:
            seen.complaints.append(f"{event['type']} {event['id']}, not {expected}, ends: {ends}")
        ends += event["type"] == "done"
        _take(event, arrival, seen, stamped)
    whole = stamped or "".join(seen.said) == script.answer
    if ends != 1 or len(seen.said) != script.tokens or not whole:
        seen.complaints.append(f"{ends} ends, {len(seen.said)} pieces, same words: {whole}")
    return seen


def _take(event: dict[str, Any], arrival: int, seen: Seen, stamped: bool) -> None:
    content, metadata = event["content"], event["metadata"]
    if event["type"] == "content" and metadata.get("partial"):
        seen.said.append(content)
        seen.piece_arrivals.append(arrival)
        if stamped:
            seen.latencies_ms.append((arrival - int(content)) * MS)
    elif event["type"] == "error" or metadata.get("status", "executed") != "executed":
        seen.complaints.append(f"{event['type']}: {content} {metadata}")


def _lines(stream: Answer) -> Iterator[tuple[int, bytes]]:
    """Whole lines with the arrival of their last byte; heartbeats are passed over."""
    rest = b""
    for arrival, data in stream.pieces:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line:
                yield arrival, line
    if rest:
        yield stream.pieces[-1][0], rest  # cut within a line
