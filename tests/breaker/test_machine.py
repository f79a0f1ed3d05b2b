"""The breaker's states, driven by a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from machina.breaker import Breaker, Snapshot, State, Ticket
from machina.errors import BreakerOpen


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def make_breaker(threshold: int = 3) -> tuple[Breaker, Clock]:
    clock = Clock()
    return (
        Breaker(
            "agent_streaming",
            threshold=threshold,
            cool_down_seconds=30,
            probe_seconds=20,
            clock=clock,
        ),
        clock,
    )


def open_up(breaker: Breaker, failures: int = 3) -> None:
    for _ in range(failures):
        breaker.failure(breaker.admit())


def test_a_new_breaker_is_closed_and_lets_everything_through() -> None:
    breaker, _ = make_breaker()
    tickets = [breaker.admit() for _ in range(10)]
    assert not any(ticket.probe for ticket in tickets)
    assert breaker.snapshot() == Snapshot(State.CLOSED, 0, 3)


def test_it_opens_when_failures_in_a_row_reach_the_threshold() -> None:
    breaker, _ = make_breaker()
    open_up(breaker, 2)
    assert breaker.state is State.CLOSED
    open_up(breaker, 1)
    assert breaker.snapshot() == Snapshot(State.OPEN, 3, 3)


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker, _ = make_breaker()
    open_up(breaker, 2)
    breaker.success(breaker.admit())
    open_up(breaker, 2)
    assert breaker.snapshot() == Snapshot(State.CLOSED, 2, 3)


def test_an_open_breaker_refuses_and_says_for_how_long() -> None:
    breaker, clock = make_breaker()
    open_up(breaker)
    clock.now += 10
    with pytest.raises(BreakerOpen, match="agent_streaming") as refused:
        breaker.admit()
    assert refused.value.retry_after == 20


def test_one_probe_goes_through_when_the_cool_down_is_over() -> None:
    breaker, clock = make_breaker()
    open_up(breaker)
    clock.now += 30
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit().probe
    for _ in range(100):
        with pytest.raises(BreakerOpen) as refused:
            breaker.admit()
        assert refused.value.retry_after == 20


def test_a_probe_that_succeeds_closes_the_breaker() -> None:
    breaker, clock = make_breaker()
    open_up(breaker)
    clock.now += 30
    breaker.success(breaker.admit())
    assert breaker.snapshot() == Snapshot(State.CLOSED, 0, 3)
    assert not breaker.admit().probe


def test_a_probe_that_fails_opens_it_for_another_cool_down() -> None:
    breaker, clock = make_breaker()
    open_up(breaker)
    clock.now += 30
    breaker.failure(breaker.admit())
    assert breaker.state is State.OPEN
    clock.now += 29
    with pytest.raises(BreakerOpen):
        breaker.admit()
    clock.now += 1
    assert breaker.admit().probe


def test_the_next_probe_goes_when_the_last_one_stayed_silent_too_long() -> None:
    breaker, clock = make_breaker()
    open_up(breaker)
    clock.now += 30
    silent = breaker.admit()
    clock.now += 20
    second = breaker.admit()
    assert second.probe
    breaker.success(silent)  # too late to say anything
    breaker.failure(silent)
    breaker.release(silent)
    assert breaker.snapshot().state is State.HALF_OPEN
    breaker.success(second)
    assert breaker.snapshot().state is State.CLOSED


def test_the_next_probe_goes_at_once_when_the_last_one_was_given_back() -> None:
    breaker, clock = make_breaker()
    open_up(breaker)
    clock.now += 30
    breaker.release(breaker.admit())
    assert breaker.admit().probe


def test_results_from_before_the_breaker_opened_change_nothing() -> None:
    breaker, clock = make_breaker()
    early = breaker.admit()
    open_up(breaker)
    breaker.success(early)
    breaker.failure(early)
    assert breaker.snapshot() == Snapshot(State.OPEN, 3, 3)
    clock.now += 30
    breaker.success(early)
    assert breaker.state is State.HALF_OPEN


def test_a_reset_closes_it_and_forgets_the_failures() -> None:
    breaker, _ = make_breaker()
    open_up(breaker)
    breaker.reset()
    assert breaker.snapshot() == Snapshot(State.CLOSED, 0, 3)
    breaker.success(breaker.admit())


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, there is one probe, and the way out stays open."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.clock = make_breaker(threshold=2)
        self.open: list[Ticket] = []
        self.probe: tuple[Ticket, float] | None = None
        self.refused_for: float | None = 1.0

    @rule()
    def ask(self) -> None:
        try:
            ticket = self.breaker.admit()
        except BreakerOpen as refused:
            self.refused_for = refused.retry_after
            return
        if ticket.probe:
            assert self.probe is None or self.clock.now >= self.probe[1]
            self.probe = (ticket, self.clock.now + 20)
        self.open.append(ticket)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), verdict=st.sampled_from(("success", "failure", "release")))
    def answer(self, data: st.DataObject, verdict: str) -> None:
        ticket = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        getattr(self.breaker, verdict)(ticket)
        if self.probe is not None and ticket == self.probe[0]:
            self.probe = None

    @rule(seconds=st.sampled_from((1, 20, 30)))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.probe = None
        assert self.breaker.state is State.CLOSED

    @invariant()
    def failures_stay_below_the_threshold_while_closed(self) -> None:
        state, failures, threshold = self.breaker.snapshot()
        assert state is not State.CLOSED or failures < threshold

    @invariant()
    def a_refusal_names_a_time_to_wait(self) -> None:
        assert self.refused_for is not None
        assert 0 < self.refused_for <= 30

    def teardown(self) -> None:
        self.clock.now += 60
        self.breaker.success(self.breaker.admit())
        assert self.breaker.state is State.CLOSED


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_any_order_of_events_keeps_one_probe_and_a_way_out = AnyOrder.TestCase
