"""What the clock says about a schedule: its first time, what is due, and what comes after it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from machina.scheduler.cron import last_fire, next_fire
from machina.store.schedules import Schedule

MILLISECOND: Final = timedelta(milliseconds=1)
GRACE_SECONDS: Final = 30.0
"""Nothing is missed that is less late: a scheduler may be busy, or have died and been succeeded."""


class Due(NamedTuple):
    """A due time that has come."""

    at: datetime
    """The last one that has passed: earlier ones are not made up for."""
    next_at: datetime | None
    missed: int
    """Due times before `at` that passed unused, as far as they were counted."""
    is_stale: bool
    """It passed so long ago that it is not made up for at all."""


def first_time(schedule: Schedule, now: datetime, min_seconds: float) -> datetime | None:
    """When a schedule that is new, changed or resumed is due; None when never again.

    By a frequency or an interval at once, or an interval after it last fired; by cron at its next
    time. What passed while it was paused is not made up for.
    """
    last = schedule.last_tick
    if schedule.once:
        return None if schedule.done else now
    if schedule.interval is not None:
        if last is None or last > now:  # the clock was set back: what it said is worth nothing
            return now
        return max(now, _trimmed(last + timedelta(seconds=schedule.interval)))
    return _next_cron(schedule, now, min_seconds)


def due_of(schedule: Schedule, now: datetime, min_seconds: float, window_seconds: float) -> Due:
    """What is due now of a schedule whose `next_at` has come.

    Args:
        min_seconds: Shortest time between two due times of a cron line.
        window_seconds: How late a due time may be, beyond a grace of half a minute.
    """
    planned = schedule.next_at
    assert planned is not None  # noqa: S101  # callers looked
    window = timedelta(seconds=max(window_seconds, GRACE_SECONDS))
    if schedule.once:
        return Due(planned, None, 0, is_stale=False)
    if schedule.interval is not None:
        every = timedelta(seconds=schedule.interval)
        passed = (now - planned) // every
        at = _trimmed(planned + passed * every)
        return Due(at, _trimmed(at + every), passed, is_stale=now - at > window)
    since = max(planned, now - window)
    found = last_fire(schedule.cron or "", schedule.timezone, since, now)
    if found is None:
        return Due(planned, _next_cron(schedule, now, min_seconds), 0, is_stale=now > planned)
    at, passed = found
    after = max(now, at + timedelta(seconds=min_seconds) - MILLISECOND)
    return Due(at, _next_cron(schedule, after, min_seconds), passed, is_stale=False)


def is_astray(schedule: Schedule, now: datetime) -> bool:
    """Whether the next time lies further ahead than an interval: the clock was set back."""
    if schedule.interval is None or schedule.next_at is None:
        return False
    return schedule.next_at - now > timedelta(seconds=schedule.interval + 1)


def _next_cron(schedule: Schedule, after: datetime, min_seconds: float) -> datetime:
    last = schedule.last_tick
    if last is not None:
        after = max(after, last + timedelta(seconds=min_seconds) - MILLISECOND)
    return next_fire(schedule.cron or "", schedule.timezone, after)


def _trimmed(moment: datetime) -> datetime:
    """To the millisecond, which is all that the store keeps."""
    return moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
