"""The client's process: orders as lines on standard input, answers as lines on standard output.

`load` opens many streams and answers once all have ended; `report` then says what was seen of them
between two moments. `series` opens one stream after the other.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

import uvloop

from bench.client.connection import Stream, open_stream
from bench.client.verdict import MS, Seen, judge
from bench.plan import Load, Script, Series, Spread, Target, read_load, read_series, request_bytes

SILENCE_SECONDS = 120.0
"""Longest wait for the next sign of life from a stream."""
SHOWN = 10


class Client:
    """Keeps what the last load gave, until it is asked for."""

    def __init__(self) -> None:
        self._load: Load | None = None
        self._streams: list[Stream | str] = []

    async def load(self, load: Load) -> dict[str, Any]:
        """Opens all streams over the ramp and waits until each has ended."""
        self._load = load
        request = request_bytes(load.target, load.script)
        began = asyncio.get_running_loop().time()
        pause = load.ramp_seconds / max(load.streams, 1)
        tasks = [
            asyncio.create_task(_watch(load.target.port, request, began + index * pause))
            for index in range(load.streams)
        ]
        self._streams = list(await asyncio.gather(*tasks))
        return {"streams": len(self._streams)}

    def report(self, since: int, until: int) -> dict[str, Any]:
        """What came between two moments (monotonic ns), and what is wrong anywhere."""
        assert self._load is not None
        script = self._load.script
        complaints: list[str] = []
        first_ms, lag_ms, latencies_ms, hold = [], [], [], []
        events = events_in_window = pieces_in_window = 0
        for stream in self._streams:
            if isinstance(stream, str):
                complaints.append(stream)
                continue
            seen = judge(stream, script, stamped=self._load.target.stamped)
            complaints += seen.complaints
            events += len(seen.arrivals)
            events_in_window += sum(since <= at < until for at in seen.arrivals)
            pieces_in_window += sum(since <= at < until for at, _ in stream.pieces)
            if not seen.arrivals:
                continue
            first_ms.append((seen.arrivals[0] - stream.began) * MS)
            hold.append((seen.arrivals[0], seen.arrivals[-1]))
            lag_ms.append(_lag_ms(seen, script))
            latencies_ms += _within(seen, since, until)
        return {
            "events": events,
            "events_in_window": events_in_window,
            "writes_in_window": pieces_in_window,
            "complaints": complaints[:SHOWN],
            "complaint_count": len(complaints),
            "first_ms": _spread(first_ms),
            "lag_ms": _spread(lag_ms),
            "latency_ms": _spread(latencies_ms),
            "open_throughout": sum(a <= since and z >= until for a, z in hold),
        }


async def _watch(port: int, request: bytes, at: float) -> Stream | str:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(at - loop.time())
    try:
        stream = await open_stream(port, request)
    except OSError as error:
        return f"not connected: {error!r}"
    while not stream.ended.done():
        known = len(stream.pieces)
        await asyncio.wait([stream.ended], timeout=SILENCE_SECONDS)
        if not stream.ended.done() and len(stream.pieces) == known:
            return f"silent for {SILENCE_SECONDS:g} s after {known} pieces"
    return stream


def _lag_ms(seen: Seen, script: Script) -> float:
    """How far behind its pace the last piece came, counted from the first."""
    if len(seen.piece_arrivals) < 2:
        return 0.0
    took = (seen.piece_arrivals[-1] - seen.piece_arrivals[0]) * MS
    return took - (len(seen.piece_arrivals) - 1) * script.delay_ms


def _within(seen: Seen, since: int, until: int) -> list[float]:
    if not seen.latencies_ms:
        return []
    pairs = zip(seen.piece_arrivals, seen.latencies_ms, strict=True)
    return [latency for at, latency in pairs if since <= at < until]


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    spread = Spread.of(values)
    return {"count": spread.count, "p50": spread.p50, "p99": spread.p99, "most": spread.most}


async def series(order: Series) -> dict[str, Any]:
    """Time to the first event of one stream after the other, in ms by target."""
    first_ms: dict[str, list[float]] = {target.name: [] for target in order.targets}
    complaints: list[str] = []
    for sample in range(order.samples):
        turn = sample % len(order.targets)
        for target in order.targets[turn:] + order.targets[:turn]:
            await asyncio.sleep(order.gap_seconds / len(order.targets))
            took, wrong = await _one(target, order.script)
            first_ms[target.name].append(took)
            complaints += wrong
    return {
        "first_ms": first_ms,
        "complaints": complaints[:SHOWN],
        "complaint_count": len(complaints),
    }


async def _one(target: Target, script: Script) -> tuple[float, list[str]]:
    stream = await open_stream(target.port, request_bytes(target, script))
    async with asyncio.timeout(SILENCE_SECONDS):
        await stream.ended
    seen = judge(stream, script, stamped=target.stamped)
    first = stream.pieces[0][0] if stream.pieces else time.monotonic_ns()
    return (first - stream.began) * MS, seen.complaints


def main() -> None:
    """Answers orders until standard input ends."""
    gc.disable()  # a collection would look like a late delivery
    client = Client()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            fields = json.loads(line)
            match fields["do"]:
                case "load":
                    answer = runner.run(client.load(read_load(fields)))
                case "report":
                    answer = client.report(fields["since"], fields["until"])
                case "series":
                    answer = runner.run(series(read_series(fields)))
                case unknown:
                    raise ValueError(f"Nothing is called {unknown!r} here.")
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
