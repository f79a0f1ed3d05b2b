"""When a cron line fires next: pure functions of the line, the time zone and a moment.

Lines have five fields (minute, hour, day, month, weekday) with names, ranges and steps; where day
and weekday are both given, either is enough. They mean UTC unless a zone is named. When the clocks
of the zone change:

* An hour that does not exist: a line with fixed hours (`30 2 * * *`) fires as much later as the
  clocks jumped; one whose hours are `*` or `*/n` has nothing to fire in it.
* An hour that comes twice: a line with fixed hours fires the first time; one whose hours are `*` or
  `*/n` fires both times, so that "every 15 minutes" stays that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from croniter import croniter
from croniter.croniter import CroniterError

from machina.errors import Invalid

_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_PART: Final = re.compile(r"\*|\?|\d{1,2}|[a-z]{3}|l[0-7]?|[0-7]#[1-5]|[a-z]{3}#[1-5]")
"""What stands between commas, hyphens and slashes. Random and hashed fields are not among it."""
_YEARS_AHEAD: Final = 12
"""29 February is at most eight years away, on a weekday of choice it need not be found."""
_NEAR: Final = timedelta(hours=3)
_LOOKBACKS: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (300, 3_600, 86_400, 7 * 86_400, 31 * 86_400, 366 * 86_400)
)
_MAX_STEPS: Final = 10_000
_INSTANT: Final = timedelta(microseconds=1)


class _Line(NamedTuple):
    fields: str
    follows_the_clock: bool
    """Its hours are `*` or `*/n`: it counts time, not times of day."""


def check_cron(text: str, timezone: str | None) -> None:
    """Refuses a line that cannot be read or never fires, and a zone that does not exist.

    Reads the zone's file the first time: call it on a thread.

    Raises:
        Invalid: the message says what is wrong.
    """
    load_zone(timezone)
    next_fire(text, timezone, datetime(2026, 1, 1, tzinfo=UTC))


@lru_cache(maxsize=512)
def load_zone(name: str | None) -> tzinfo:
    """The time zone of this name; UTC for None. Reads a file the first time.

    Raises:
        Invalid: there is no such zone on this machine.
    """
    if name is None or name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Invalid(
            f"There is no time zone '{name}'; use a name such as Europe/Lisbon.", field="timezone"
        ) from None


def next_fire(text: str, timezone: str | None, after: datetime) -> datetime:
    """The first moment after `after`, in UTC, at which the line fires.

    Raises:
        Invalid: the line cannot be read, or does not fire within twelve years.
    """
    line, zone = _read(text), load_zone(timezone)
    local = after.astimezone(zone).replace(tzinfo=None)
    shift = _shift_near(zone, after)
    best: datetime | None = None
    for wall in _walls(line, local - shift - _INSTANT if shift else local):
        if best is not None and wall > best.astimezone(zone).replace(tzinfo=None) + shift:
            break
        for moment in _moments(wall, zone, line):
            if moment > after and (best is None or moment < best):
                best = moment
        if best is not None and not shift:
            break
    if best is None:
        raise Invalid(f"The cron line '{text}' never fires.", field="cron")
    return best


def last_fire(
    text: str, timezone: str | None, since: datetime, until: datetime
) -> tuple[datetime, int] | None:
    """The last moment from `since` to `until`, both included, at which the line fires.

    Also how many such moments were passed over on the way to it, as far as they were looked at.
    None when it does not fire in that time.
    """
    for lookback in (*_LOOKBACKS, until - since):
        start = max(since, until - lookback)
        fires = list(_fires(text, timezone, start - _INSTANT, until))
        if fires:
            return fires[-1], len(fires) - 1
        if start == since:
            return None
    return None


def _fires(text: str, timezone: str | None, after: datetime, until: datetime) -> Iterator[datetime]:
    for _ in range(_MAX_STEPS):
        after = next_fire(text, timezone, after)
        if after > until:
            return
        yield after


@lru_cache(maxsize=512)
def _read(text: str) -> _Line:
    lowered = text.strip().lower()
    fields = _ALIASES.get(lowered, lowered).split()
    sound = len(fields) == 5 and all(
        _PART.fullmatch(part) for field in fields for part in re.split(r"[,/-]", field)
    )
    if sound:
        line = " ".join(fields)
        try:
            croniter(line)
        except (CroniterError, ValueError, KeyError):
            sound = False
    if not sound:
        raise Invalid(
            f"'{text}' is no cron line; write minute, hour, day, month and weekday, as "
            "'*/15 9-17 * * mon-fri'.",
            field="cron",
        )
    return _Line(line, fields[1].startswith("*"))


def _walls(line: _Line, after: datetime) -> Iterator[datetime]:
    """The times on a wall clock at which the line fires, in their order."""
    times = croniter(line.fields, after, max_years_between_matches=_YEARS_AHEAD)
    while True:
        try:
            yield times.get_next(datetime)
        except CroniterError:
            return


def _moments(wall: datetime, zone: tzinfo, line: _Line) -> tuple[datetime, ...]:
    """The moments at which a wall clock of the zone shows this time, by the rules above."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    second = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if first == second:
        return (first,)
    if first > second:  # the clocks jump over it
        return () if line.follows_the_clock else (first,)
    return (first, second) if line.follows_the_clock else (first,)


def _shift_near(zone: tzinfo, moment: datetime) -> timedelta:
    """By how much the zone's clocks change around a moment; nothing on most days."""
    before = (moment - _NEAR).astimezone(zone).utcoffset() or timedelta()
    after = (moment + _NEAR).astimezone(zone).utcoffset() or timedelta()
    return abs(after - before)
