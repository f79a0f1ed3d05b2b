"""Judges one watched run: every promise is one check.

The checks know nothing of how the servers work. `selftest.py` shows of each that it can fail.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bench.chaos.plan import Kind
from bench.chaos.seen import (
    Connection,
    Ending,
    Fault,
    Id,
    Watch,
    is_done,
    read_event,
    read_id,
    shown_text,
)

AFTER_EFFECT_SECONDS: Final = 12.0
"""How long after a fault is over a run may still change hands because of it."""
ALLOWED_REFUSALS: Final = (429, 503)


class Wrong(StrEnum):
    """What can be wrong."""

    BAD_EVENT = "bad_event"  # a line that is no event
    ORDER = "order"  # an id that is lower than one before it
    REPEATED = "repeated"  # an id for the second time
    GAP = "gap"  # seq is not dense within an attempt
    BAD_BEGINNING = "bad_beginning"  # an attempt that does not say that it begins
    UNENDED = "unended"  # no terminal event in time
    EXTRA_END = "extra_end"  # more than one
    AFTER_END = "after_end"  # something after it
    NOT_CLOSED = "not_closed"  # the body stays open after it
    TORN_LINE = "torn_line"  # a response that ends within a line
    TEXT = "text"  # not the text that the model said
    REPLAY = "replay"  # the replay is not what was seen live
    STATUS = "status"  # the record says something else than `done`
    OUTCOME = "outcome"  # an end that nobody asked for
    ANSWER = "answer"  # an HTTP status that should not be
    NO_RETRY_AFTER = "no_retry_after"
    RUN_CHANGED = "run_changed"  # a retry was answered with another run
    SPURIOUS = "spurious_attempt"  # more attempts than faults
    BROKEN_OFF = "broken_off"  # a connection was cut, and its API was not killed
    LEAKED = "leaked"  # a permit or a reader is still taken
    STRAY_RUN = "stray_run"  # a run that nobody asked for
    BAD_EXIT = "bad_exit"  # a process that was asked to stop and failed to


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise, with what is needed to look for its cause."""

    wrong: Wrong
    run_id: str
    detail: str


class _Case:
    """One run on trial."""

    def __init__(self, watch: Watch, faults: Sequence[Fault]) -> None:
        self.watch = watch
        self.faults = [fault for fault in faults if fault.at is not None]
        self.lines = [line.data for line in watch.lines]
        self.events = _events(self.lines)

    def wrong(self, wrong: Wrong, detail: str) -> Violation:
        return Violation(wrong, self.watch.run_id or self.watch.plan.key, detail)

    def hit(self, connection: Connection, *kinds: Kind) -> bool:
        """Whether one of these was done to its API while it was open."""
        return any(
            fault.plan.kind in kinds
            and fault.instance == connection.instance
            and connection.opened < (fault.over or float("inf"))
            and (fault.at or 0.0) <= connection.closed
            for fault in self.faults
        )


def judge(watch: Watch, faults: Sequence[Fault]) -> list[Violation]:
    """Everything that is wrong with what was seen of one run, and asked about it afterwards."""
    case = _Case(watch, faults)
    return [violation for check in CHECKS for violation in check(case)]


def _events(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    return [event for line in lines if (event := read_event(line)) is not None]


def _lines_are_events(case: _Case) -> Iterator[Violation]:
    for line in case.lines:
        if read_event(line) is None:
            yield case.wrong(Wrong.BAD_EVENT, f"{line[:200]!r}")


def _live_order(case: _Case) -> Iterator[Violation]:
    yield from _order(case, case.events, "live")


def _replay_order(case: _Case) -> Iterator[Violation]:
    yield from _order(case, _events(case.watch.replay or []), "replay")


def _order(case: _Case, events: Sequence[dict[str, Any]], where: str) -> Iterator[Violation]:
    seen: set[Id] = set()
    before = Id(0, 0)
    for event in events:
        id = read_id(event["id"]) or before
        step = f"{where}: {id} after {before}"
        if id in seen:
            yield case.wrong(Wrong.REPEATED, step)
        elif id < before:
            yield case.wrong(Wrong.ORDER, step)
        elif id.attempt == before.attempt and id.seq != before.seq + 1:
            yield case.wrong(Wrong.GAP, step)
        elif id.attempt > before.attempt:
            yield from _beginning(case, id, event, step)
        seen.add(id)
        before = max(id, before)


def _beginning(case: _Case, id: Id, event: dict[str, Any], step: str) -> Iterator[Violation]:
    if id.seq != 1:
        yield case.wrong(Wrong.GAP, step)
    wanted = "start" if id.attempt == 1 else "restart"
    if event["type"] != wanted or event["metadata"].get("attempt") != id.attempt:
        yield case.wrong(Wrong.BAD_BEGINNING, f"{step}: {event['type']} {event['metadata']}"[:300])


def _one_end(case: _Case) -> Iterator[Violation]:
    for where, lines in (("live", case.lines), ("replay", case.watch.replay)):
        if lines is None:
            continue
        ends = [number for number, line in enumerate(lines) if is_done(line)]
        if not ends or (where == "live" and case.watch.ended is None):
            last = lines[-1][:120] if lines else b""
            yield case.wrong(Wrong.UNENDED, f"{where}: {len(lines)} lines, the last is {last!r}")
        if len(ends) > 1:
            yield case.wrong(Wrong.EXTRA_END, f"{where}: {len(ends)} terminal events")
        if ends and len(lines) > ends[0] + 1:
            yield case.wrong(Wrong.AFTER_END, f"{where}: {lines[ends[0] + 1][:120]!r}")
    if case.watch.asked_at_end:
        yield case.wrong(Wrong.AFTER_END, f"after its id: {case.watch.asked_at_end[0][:120]!r}")


def _bodies(case: _Case) -> Iterator[Violation]:
    """Responses end properly, between two lines and soon after `done`; an API that is asked to
    stop ends them so as well, only one that is killed or stands still may not.
    """
    stopped = (Kind.API_KILL, Kind.API_PAUSE)
    for connection in case.watch.connections:
        where = f"{connection.how} on {connection.instance} after {connection.after}"
        if connection.rest and not case.hit(connection, *stopped):
            yield case.wrong(Wrong.TORN_LINE, f"{where}: {connection.rest[:120]!r}")
        if connection.ending is Ending.CUT and not case.hit(connection, *stopped):
            yield case.wrong(Wrong.BROKEN_OFF, where)
        lingers = connection.done is not None and connection.ending is Ending.SILENT
        if lingers and not case.hit(connection, *stopped):
            yield case.wrong(Wrong.NOT_CLOSED, where)
    if case.watch.replay_rest:
        yield case.wrong(Wrong.TORN_LINE, f"replay: {case.watch.replay_rest[:120]!r}")


def _text(case: _Case) -> Iterator[Violation]:
    if not case.events or case.events[-1]["type"] != "done":
        return
    metadata = case.events[-1]["metadata"]
    said, wanted = str(metadata.get("content")), case.watch.plan.text
    cancelled = metadata.get("status") == "cancelled"
    right = f"{wanted} ".startswith(f"{said} ") or not said if cancelled else said == wanted
    texts = {"shown": shown_text(case.events), "pieces": shown_text(case.events, final=False)}
    if not right:
        yield case.wrong(Wrong.TEXT, f"done says {_shorten(said)}, not {_shorten(wanted)}")
    for name, text in texts.items():
        if text != said:
            yield case.wrong(Wrong.TEXT, f"{name}: {_shorten(text)}, done: {_shorten(said)}")


def _replay(case: _Case) -> Iterator[Violation]:
    """The replay is, byte for byte, what a client saw that came and went."""
    replay = case.watch.replay
    if replay is None or replay == case.lines:
        return
    pairs = itertools.zip_longest(case.lines, replay, fillvalue=b"")
    place, (live, later) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
    yield case.wrong(
        Wrong.REPLAY,
        f"{len(case.lines)} lines live, {len(replay)} later; line {place + 1} is "
        f"{live[:120]!r} live and {later[:120]!r} later",
    )


def _status(case: _Case) -> Iterator[Violation]:
    if not case.events or case.events[-1]["type"] != "done":
        return
    done = case.events[-1]["metadata"].get("status")
    allowed = ["executed"] if case.watch.cancel_sent is None else ["executed", "cancelled"]
    if done not in allowed:
        yield case.wrong(Wrong.OUTCOME, f"{done}: {case.events[-1]['metadata'].get('error')}")
    if case.watch.status is not None:
        public = "agent-executed" if done == "executed" else "failed"
        outcome = None if done == "executed" else done
        if (case.watch.status, case.watch.outcome) != (public, outcome):
            says = f"{case.watch.status} ({case.watch.outcome})"
            yield case.wrong(Wrong.STATUS, f"done says {done}, the record {says}")


def _answers(case: _Case) -> Iterator[Violation]:
    for connection in case.watch.connections:
        where = f"{connection.how} on {connection.instance} after {connection.after}"
        if connection.status == 200:
            if connection.run_id != case.watch.run_id:
                yield case.wrong(Wrong.RUN_CHANGED, f"{where}: {connection.run_id}")
        elif connection.status in ALLOWED_REFUSALS:
            if not (connection.retry_after or "").isdecimal():
                yield case.wrong(
                    Wrong.NO_RETRY_AFTER, f"{where}: {connection.status} {connection.retry_after}"
                )
        elif connection.status is not None:
            said = f"{connection.status} {connection.said[:200]}"
            yield case.wrong(Wrong.ANSWER, f"{where}: {said}")
    for trouble in case.watch.trouble:
        yield case.wrong(Wrong.ANSWER, trouble)


def _attempts(case: _Case) -> Iterator[Violation]:
    """A run changes hands at most once for each fault that happened in its life."""
    ids = [id for event in case.events if (id := read_id(event["id"])) is not None]
    attempts = max((id.attempt for id in ids), default=1)
    ended = case.watch.ended or float("inf")
    reasons = sum(
        fault.plan.kind.moves_runs
        and (fault.at or 0.0) <= ended
        and (fault.over or float("inf")) + AFTER_EFFECT_SECONDS >= case.watch.began
        for fault in case.faults
    )
    if attempts > 1 + reasons:
        yield case.wrong(Wrong.SPURIOUS, f"{attempts} attempts, {reasons} faults in its life")


CHECKS: Final[tuple[Callable[[_Case], Iterator[Violation]], ...]] = (
    _lines_are_events,
    _live_order,
    _replay_order,
    _one_end,
    _bodies,
    _text,
    _replay,
    _status,
    _answers,
    _attempts,
)


def _shorten(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:30]!r} … {text[-25:]!r} ({len(text)})"
