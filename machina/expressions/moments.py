"""`datetime` and `timedelta` as the language knows them: the classes, and no module behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from machina.errors import BudgetExceeded
from machina.expressions.budget import Budget
from machina.expressions.values import Builtin

_MAX_TEXT = 200  # characters of a date, or of its format


def _make_datetime(budget: Budget, /, *args: Any, **kwargs: Any) -> datetime:
    budget.take(64)
    return datetime(*args, **kwargs)  # noqa: DTZ001  # authors count in naive moments


def _make_timedelta(budget: Budget, /, *args: Any, **kwargs: Any) -> timedelta:
    budget.take(64)
    return timedelta(*args, **kwargs)


def _utcnow(_: Budget, /) -> datetime:
    # Naive on purpose: documents and filters hold naive UTC. Python deprecated its own.
    return datetime.now(UTC).replace(tzinfo=None)


def _now(_: Budget, /) -> datetime:
    return datetime.now()  # noqa: DTZ005  # authors ask for the naive local time


def _fromisoformat(_: Budget, text: Any, /) -> datetime:
    _expect_short(text)
    return datetime.fromisoformat(text)


def _strptime(budget: Budget, text: Any, pattern: Any, /) -> datetime:
    _expect_short(text)
    _expect_short(pattern)
    budget.work(200)
    return datetime.strptime(text, pattern)  # noqa: DTZ007  # naive, as in Python


def _fromtimestamp(_: Budget, seconds: Any, /) -> datetime:
    return datetime.fromtimestamp(seconds)  # noqa: DTZ006  # naive, as in Python


def _utcfromtimestamp(_: Budget, seconds: Any, /) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _expect_short(text: Any) -> None:
    if type(text) is not str:
        raise TypeError(f"a date must be a text, not '{type(text).__name__}'")
    if len(text) > _MAX_TEXT:
        raise BudgetExceeded(f"a date or its format is longer than {_MAX_TEXT} characters")


DATETIME = Builtin(
    "datetime",
    _make_datetime,
    type=datetime,
    members={
        "utcnow": Builtin("utcnow", _utcnow),
        "now": Builtin("now", _now),
        "today": Builtin("today", _now),
        "fromisoformat": Builtin("fromisoformat", _fromisoformat),
        "strptime": Builtin("strptime", _strptime),
        "fromtimestamp": Builtin("fromtimestamp", _fromtimestamp),
        "utcfromtimestamp": Builtin("utcfromtimestamp", _utcfromtimestamp),
    },
)
TIMEDELTA = Builtin("timedelta", _make_timedelta, type=timedelta)
_MODULE = Builtin("datetime", None, members={"datetime": DATETIME, "timedelta": TIMEDELTA})


def import_module(_: Budget, name: Any, /) -> Builtin:
    """`__import__('datetime')`; the grammar lets no other name through."""
    if name != "datetime":
        raise ValueError("the only module is 'datetime'")
    return _MODULE
