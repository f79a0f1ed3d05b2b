"""Cron lines: what is one, when it fires, and what the clocks of a zone do to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.errors import Invalid
from machina.scheduler.cron import check_cron, last_fire, load_zone, next_fire

BERLIN = "Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(cron: str, zone: str | None, after: str, count: int) -> list[str]:
    moment, found = at(after), []
    for _ in range(count):
        moment = next_fire(cron, zone, moment)
        found.append(moment.strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("*/15 * * * *", "2026-11-24T12:00", ["11-24 12:15", "11-24 12:30"]),
        ("*/2 * * * *", "2026-11-24T12:00:01", ["11-24 12:02", "11-24 12:04"]),
        ("0 9 * * MON-FRI", "2026-11-27T10:00", ["11-30 09:00", "12-01 09:00"]),
        ("0 0 1 jan,jul *", "2026-11-24T12:00", ["01-01 00:00", "07-01 00:00"]),
        ("0 0 31 * *", "2026-11-24T12:00", ["12-31 00:00", "01-31 00:00", "03-31 00:00"]),
        ("0 0 29 2 *", "2026-11-24T12:00", ["02-29 00:00"]),
        ("0 0 L * *", "2027-02-01T00:00", ["02-28 00:00", "03-31 00:00"]),
        ("0 12 13 * fri", "2026-11-01T00:00", ["11-06 12:00", "11-13 12:00", "11-20 12:00"]),
        ("59 23 31 12 *", "2026-12-31T23:59", ["12-31 23:59"]),
        ("@daily", "2026-11-24T12:00", ["11-25 00:00"]),
        ("5,35 8-9/1 * * 7", "2026-11-24T12:00", ["11-29 08:05", "11-29 08:35", "11-29 09:05"]),
    ],
)
def test_a_line_fires_at_its_times(cron: str, after: str, expected: list[str]) -> None:
    assert fires(cron, None, after, len(expected)) == expected
    assert fires(cron, "utc", after, len(expected)) == expected


@pytest.mark.parametrize(
    "cron",
    [
        *("", "x", "* * * *", "* * * * * *", "0 0 1 1 * 2020", "99 * * * *", "*/0 * * * *"),
        *("H * * * *", "R * * * *", "r(0-5) * * * *", "MON * * * *", "0 0 31 2 *", "@reboot"),
        *("0 0 0 1 *", "-1 * * * *", "1-- * * * *", "* * * * fun", "1" * 5_000, "🕛 * * * *"),
        "0,1," * 2 + " * * * *",
    ],
)
def test_what_is_no_line_or_never_fires_is_refused(cron: str) -> None:
    with pytest.raises(Invalid):
        check_cron(cron, None)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "/etc/passwd", "Europe", "\0"])
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    with pytest.raises(Invalid, match="time zone"):
        check_cron("* * * * *", zone)


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # On 2026-03-29 Berlin's clocks jump from 02:00 to 03:00, at 01:00 UTC.
        ("30 2 * * *", "2026-03-28T12:00", ["03-29 01:30", "03-30 00:30"]),
        ("0,30 2 * * *", "2026-03-28T12:00", ["03-29 01:00", "03-29 01:30", "03-30 00:00"]),
        ("30 2 * * *", "2026-03-29T01:10", ["03-29 01:30", "03-30 00:30"]),
        ("*/30 * * * *", "2026-03-29T00:10", ["03-29 00:30", "03-29 01:00", "03-29 01:30"]),
        ("0 */2 * * *", "2026-03-28T22:30", ["03-28 23:00", "03-29 02:00", "03-29 04:00"]),
        ("0 3 * * *", "2026-03-28T12:00", ["03-29 01:00", "03-30 01:00"]),
        # On 2026-10-25 they go from 03:00 back to 02:00, at 01:00 UTC.
        ("30 2 * * *", "2026-10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
        ("30 2 * * *", "2026-10-25T00:40", ["10-26 01:30"]),
        (
            "*/30 * * * *",
            "2026-10-24T23:40",
            ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"],
        ),
        ("0 3 * * *", "2026-10-24T12:00", ["10-25 02:00", "10-26 02:00"]),
        ("0 9 * * *", "2026-03-28T12:00", ["03-29 07:00", "03-30 07:00"]),
        ("0 9 * * *", "2026-10-24T12:00", ["10-25 08:00", "10-26 08:00"]),
    ],
)
def test_the_rule_holds_when_the_clocks_change(cron: str, after: str, expected: list[str]) -> None:
    assert fires(cron, BERLIN, after, len(expected)) == expected


def test_half_an_hour_of_summer_is_respected() -> None:
    # Lord Howe: on 2026-10-04 from 02:00 to 02:30, at 15:30 UTC of the day before.
    found = fires("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00", 2)
    assert found == ["10-03 15:45", "10-04 15:15"]


_MINUTE = st.integers(0, 59).map(str) | st.sampled_from(["*", "*/7", "*/15", "0,30", "10-20"])
_HOUR = st.integers(0, 23).map(str) | st.sampled_from(["*", "*/2", "*/5", "1-4", "2,3"])
_DAY = st.sampled_from(["*", "*", "1", "28-31", "L", "*/10"])
_WEEKDAY = st.sampled_from(["*", "*", "mon-fri", "0", "sat,sun"])
_LINE = st.tuples(_MINUTE, _HOUR, _DAY, st.just("*"), _WEEKDAY).map(" ".join)
_ZONE = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
_MOMENT = st.integers(0, 10 * 366 * 86_400).map(
    lambda seconds: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def near_a_change(moment: datetime, zone: str) -> bool:
    offsets = {
        (moment + timedelta(hours=hours)).astimezone(ZoneInfo(zone)).utcoffset()
        for hours in range(-4, 5)
    }
    return len(offsets) > 1


@given(_LINE, _ZONE, _MOMENT)
def test_the_next_time_is_later_and_nothing_lies_between(
    cron: str, zone: str, after: datetime
) -> None:
    first = next_fire(cron, zone, after)
    assert first > after
    assert first.second == first.microsecond == 0
    between = after + (first - after) / 2
    assert next_fire(cron, zone, between) == first
    assert next_fire(cron, zone, first) > first
    found = last_fire(cron, zone, after, first)
    assert found is not None
    assert found[0] == first


@given(_LINE, _ZONE, _MOMENT)
def test_the_wall_clock_shows_what_the_line_says_unless_it_just_changed(
    cron: str, zone: str, after: datetime
) -> None:
    first = next_fire(cron, zone, after)
    if near_a_change(first, zone):
        return
    wall = first.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    as_if_utc = next_fire(cron, None, wall.replace(tzinfo=UTC) - timedelta(seconds=1))
    assert as_if_utc.replace(tzinfo=None) == wall


def test_every_day_of_four_years_has_its_half_past_two() -> None:
    zone = load_zone(BERLIN)
    moment, last = at("2026-01-01T00:00"), at("2030-01-01T00:00")
    days = []
    while (moment := next_fire("30 2 * * *", BERLIN, moment)) < last:
        days.append(moment.astimezone(zone).date())
    assert len(days) == len(set(days)) == (last - at("2026-01-01T00:00")).days


def test_the_last_time_is_found_without_walking_through_all_of_them() -> None:
    until = at("2036-01-01T00:00:30")
    assert last_fire("* * * * *", None, at("2026-01-01T00:00"), until) == (
        at("2036-01-01T00:00"),
        4,
    )
    assert last_fire("0 3 1 1 *", None, at("2026-01-01T00:00"), until) == (
        at("2035-01-01T03:00"),
        0,
    )
    assert last_fire("0 3 1 1 *", None, at("2026-02-01T00:00"), at("2026-12-31T00:00")) is None
