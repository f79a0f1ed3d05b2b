"""When another try is made, and how long before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.connectors.llm.refusals import parse_retry_after
from machina.connectors.llm.retries import Retries, RetryBudget, RetryPolicy
from machina.errors import ModelFailed

NOW = 1_700_000_000.0


def failure(
    code: str = "provider_unavailable",
    *,
    retryable: bool = True,
    retry_after: float | None = None,
    limit: str | None = None,
) -> ModelFailed:
    details = {"limit": limit} if limit else None
    return ModelFailed(code=code, retryable=retryable, retry_after=retry_after, details=details)


def retries(budget: RetryBudget | None = None, *, random: float = 1.0) -> Retries:
    return Retries(RetryPolicy(), budget or RetryBudget(), lambda: random)


@pytest.mark.parametrize(
    ("failed", "pauses"),
    [
        (failure(), [0.5, 1.0, None]),
        (failure("provider_cut"), [0.5, 1.0, None]),
        (failure("provider_timeout", limit="connect"), [0.5, 1.0, None]),
        (failure("provider_timeout", limit="first byte"), [None]),
        (failure("provider_rate_limited"), [0.5, 1.0, 2.0, None]),
        (failure("provider_rate_limited", retry_after=7.0), [7.5, 7.5, 7.5, None]),
        (failure("provider_rate_limited", retryable=False), [None]),
        (failure("provider_unavailable", retry_after=3.0), [3.5, 3.5, None]),
        (failure("provider_rejected", retryable=False), [None]),
        (failure("provider_invalid", retryable=False), [None]),
    ],
)
def test_pauses_grow_and_end_when_it_fails_again_and_again(
    failed: ModelFailed, pauses: list[float | None]
) -> None:
    tries = retries()
    assert [tries.pause_after(failed, 600) for _ in pauses] == pauses


def test_pause_is_between_half_and_whole_when_random_says_so() -> None:
    assert retries(random=0.0).pause_after(failure(), 600) == 0.25


def test_pause_is_bounded_when_many_tries_are_allowed() -> None:
    policy = RetryPolicy(tries_when_broken=100)
    tries = Retries(policy, RetryBudget(most=1000), lambda: 1.0)
    assert max(tries.pause_after(failure(), 600) or 0 for _ in range(50)) == 8.0


def test_no_try_is_made_when_it_would_begin_after_the_deadline() -> None:
    assert retries().pause_after(failure(), 0.5) is None
    assert retries().pause_after(failure(), 0.51) == 0.5


@given(st.integers(100, 2000))
def test_retries_are_at_most_a_fifth_of_the_calls_when_everything_fails(calls: int) -> None:
    budget = RetryBudget()
    made = 0
    for _ in range(calls):
        tries = retries(budget)
        while tries.pause_after(failure(), 600) is not None:
            made += 1
    assert made <= calls / 5


def test_budget_comes_back_when_calls_succeed() -> None:
    budget = RetryBudget()
    while budget.spend():
        pass
    for _ in range(10):
        assert not budget.spend()
        budget.earn()
    assert budget.spend()


def test_budget_is_not_spent_when_the_provider_named_the_time() -> None:
    budget = RetryBudget(most=0)
    assert retries(budget).pause_after(failure(retry_after=1.0), 600) == 1.5
    assert retries(budget).pause_after(failure(), 600) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("1.5", 1.5),
        (" 3 ", 3.0),
        ("1e9", 60.0),
        ("9" * 400, 60.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("Tue, 14 Nov 2023 20:00:00 GMT", 0.0),
        ("Sat, 01 Jan 9999 00:00:00 GMT", 60.0),
        ("Tue, 14 Nov 99999 22:13:50 GMT", None),
        ("tomorrow", None),
    ],
)
def test_retry_after_is_read_when_it_is_seconds_or_a_date(
    value: str | None, seconds: float | None
) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text(max_size=40))
def test_retry_after_is_bounded_when_it_is_arbitrary(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= 60
