"""Figures from what was seen: how long clients saw nothing new, by what was done to the servers."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.chaos.plan import Kind
from bench.chaos.seen import Connection, Ending, Fault, How, Id, Watch, read_event, read_id

EARLY_SECONDS: Final = 0.5
"""What a client still got of an attempt after its worker was hit."""
AROUND_SECONDS: Final = 1.0
LATEST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Spread:
    """A few numbers about many, in seconds."""

    count: int
    p50: float
    p99: float
    max: float


def spread(values: Iterable[float]) -> Spread | None:
    """Nearest-rank percentiles; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    last = len(ordered) - 1
    p50, p99 = (ordered[min(last, int(len(ordered) * share))] for share in (0.50, 0.99))
    return Spread(len(ordered), round(p50, 3), round(p99, 3), round(ordered[-1], 3))


def gaps_by_fault(watches: Sequence[Watch], faults: Sequence[Fault]) -> dict[str, list[float]]:
    """For each kind of fault, how long each run that it hit said nothing new to its client."""
    fired = [fault for fault in faults if fault.at is not None]
    gaps: dict[str, list[float]] = defaultdict(list)
    for watch in watches:
        for kind, seconds in _worker_gaps(watch, fired):
            gaps[kind].append(seconds)
        for fault in fired:
            silence: float | None = None
            if fault.plan.kind.part == "api":
                silence = _api_gap(watch, fault)
            elif fault.plan.kind.part == "redis":
                silence = _silence_at(watch, fault.at or 0.0)
            if silence is not None:
                gaps[fault.plan.kind].append(silence)
    return dict(gaps)


def _worker_gaps(watch: Watch, faults: Sequence[Fault]) -> Iterator[tuple[Kind, float]]:
    """From a fault of a worker to the next attempt of a run that it held.

    The fault is the first one that came after the old attempt's last event.
    """
    before: tuple[Id, float] | None = None
    for line in watch.lines:
        event = read_event(line.data)
        id = read_id(event["id"]) if event else None
        if id is None:
            continue
        if before is not None and id.attempt > before[0].attempt:
            since = before[1] - EARLY_SECONDS
            hits = [f for f in faults if f.plan.kind.part == "worker" and f.at and f.at >= since]
            cause = min(hits, key=lambda f: f.at or 0.0, default=None)
            if cause is not None and cause.at is not None and cause.at < line.at:
                yield cause.plan.kind, line.at - cause.at
        before = (id, line.at)


def _api_gap(watch: Watch, fault: Fault) -> float | None:
    """From the end of a connection (for a kill: from the kill) to the run's next event."""
    at = fault.at or 0.0
    for connection in watch.connections:
        was_open = connection.answered is not None and connection.answered <= at
        if connection.instance != fault.instance or not was_open or connection.closed < at:
            continue
        if connection.ending in (Ending.DONE, Ending.DROPPED):
            continue
        since = connection.closed if fault.plan.kind is Kind.API_TERM else at
        if since > at + LATEST_SECONDS:
            continue
        following = next((line.at for line in watch.lines if line.at > since), None)
        return None if following is None else following - since
    return None


def _silence_at(watch: Watch, at: float) -> float | None:
    """The longest silence that began around a moment in which the run was talking."""
    times = [line.at for line in watch.lines]
    around = [
        b - a for a, b in itertools.pairwise(times) if abs(a - at) <= AROUND_SECONDS and b > at
    ]
    return max(around, default=None)


def timings(watches: Sequence[Watch]) -> dict[str, Spread | None]:
    """What has nothing to do with any one fault."""
    firsts = [w.lines[0].at - w.began for w in watches if w.lines]
    cancels = [
        w.connections[-1].done - w.cancel_sent
        for w in watches
        if w.cancel_sent is not None and w.connections[-1].done is not None
    ]
    closes = [
        c.closed - c.done for w in watches for c in w.connections if c.done and c.ending == "done"
    ]
    longest = [
        max((b.at - a.at for a, b in itertools.pairwise(w.lines)), default=0.0) for w in watches
    ]
    resumes = [
        c.answered - c.opened
        for w in watches
        for c in w.connections
        if c.how is not How.START and c.status == 200 and c.answered is not None
    ]
    return {
        "start to first event": spread(firsts),
        "resume to headers": spread(resumes),
        "cancel to done": spread(max(0.0, seconds) for seconds in cancels),
        "done to closed body": spread(closes),
        "longest gap of a run": spread(longest),
    }


def api_stops(watches: Sequence[Watch], faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """Each SIGTERM of an API: how long it took, and how its streams ended."""
    stops = []
    for fault in faults:
        if fault.plan.kind is not Kind.API_TERM or fault.at is None:
            continue
        open_then = [c for w in watches for c in w.connections if _was_open(c, fault)]
        stops.append(
            {
                "streams": len(open_then),
                "exit_seconds": fault.exit_seconds,
                "exit_code": fault.exit_code,
                "done": sum(c.ending is Ending.DONE for c in open_then),
                "clean": sum(c.ending is Ending.CLEAN for c in open_then),
                "left": sum(c.ending is Ending.DROPPED for c in open_then),
                "broken": sum(c.ending in (Ending.CUT, Ending.SILENT) for c in open_then),
                "broken_lines": sum(bool(c.rest) for c in open_then),
            }
        )
    return stops


def _was_open(connection: Connection, fault: Fault) -> bool:
    at = fault.at or 0.0
    return (
        connection.instance == fault.instance
        and connection.answered is not None
        and connection.answered <= at <= connection.closed
    )


def sometimes(watches: Sequence[Watch], faults: Sequence[Fault]) -> dict[str, int]:
    """How often that happened without which a green run would mean nothing."""
    seen: dict[str, int] = dict.fromkeys(
        (
            *("attempt superseded", "resume crossed attempts", "resume on another instance"),
            *("rejoined by key", "client left", "start sent again", "stream ended before done"),
            *("worker killed mid-stream", "api killed with open streams"),
            *("redis hit while events flowed", "cancel asked", "cancelled"),
            "began with restart",
        ),
        0,
    )
    for watch in watches:
        for name, count in _of_watch(watch).items():
            seen[name] += count
    gaps = gaps_by_fault(watches, faults)
    seen["worker killed mid-stream"] = len(gaps.get(Kind.WORKER_KILL, ()))
    seen["api killed with open streams"] = len(gaps.get(Kind.API_KILL, ()))
    redis = (Kind.REDIS_KILL, Kind.REDIS_FREEZE)
    seen["redis hit while events flowed"] = sum(len(gaps.get(kind, ())) for kind in redis)
    return seen


def _of_watch(watch: Watch) -> dict[str, int]:
    attempts = [id.attempt for line in watch.lines if (id := _id_of(line.data)) is not None]
    starts = sum(c.how is How.START for c in watch.connections)
    firsts = {line.connection: _id_of(line.data) for line in reversed(watch.lines)}
    crossed = 0
    for number, connection in enumerate(watch.connections):
        after, first = read_id(connection.after), firsts.get(number)
        crossed += after is not None and first is not None and first.attempt > after.attempt
    moved = sum(
        b.after is not None and a.instance != b.instance and b.status == 200
        for a, b in itertools.pairwise(watch.connections)
    )
    endings = [c.ending for c in watch.connections]
    return {
        "attempt superseded": len(set(attempts)) - 1 if attempts else 0,
        "resume crossed attempts": crossed,
        "resume on another instance": moved,
        "rejoined by key": sum(c.how is How.REJOIN and c.status == 200 for c in watch.connections),
        "client left": endings.count(Ending.DROPPED),
        "start sent again": max(0, starts - 1),
        "stream ended before done": endings.count(Ending.CLEAN),
        "cancel asked": int(watch.cancel_sent is not None),
        "cancelled": int(watch.outcome == "cancelled"),
        "began with restart": int(bool(attempts) and attempts[0] > 1),
    }


def _id_of(line: bytes) -> Id | None:
    event = read_event(line)
    return read_id(event["id"]) if event else None


def longest_gaps(
    watches: Sequence[Watch], faults: Sequence[Fault], count: int = 8
) -> list[dict[str, Any]]:
    """The longest silences of all runs, each with what was done and where its client was."""
    gaps = [(b.at - a.at, w, a, b) for w in watches for a, b in itertools.pairwise(w.lines)]
    gaps.sort(key=lambda gap: -gap[0])
    start = min((watch.began for watch in watches), default=0.0)
    rows = []
    for seconds, watch, before, after in gaps[:count]:
        during = watch.connections[before.connection : after.connection + 1]
        hits = [f for f in faults if f.at and before.at - 1.0 <= f.at <= after.at]
        rows.append(
            {
                "seconds": round(seconds, 2),
                "run": watch.run_id,
                "ids": f"{_id_of(before.data)} to {_id_of(after.data)}",
                "from": round(before.at - start, 2),
                "faults": [f"{f.plan.kind} at {round((f.at or 0) - start, 2)}" for f in hits],
                "connections": [_show(connection, start) for connection in during],
            }
        )
    return rows


def _show(connection: Connection, start: float) -> str:
    """Where, how answered, when opened, answered and closed, and how it ended."""
    moments = (connection.opened, connection.answered, connection.closed)
    when = " ".join("-" if at is None else f"{at - start:.2f}" for at in moments)
    return f"api-{connection.instance} {connection.status} {when} {connection.ending}"


def as_rows(spreads: dict[str, Spread | None]) -> dict[str, dict[str, Any] | None]:
    """The same as plain data."""
    return {name: asdict(value) if value else None for name, value in spreads.items()}
