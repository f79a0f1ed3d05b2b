"""What an agent's definition asks the scheduler for, with every irregular way of writing it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.definitions.schedule import Plan, is_active, read_plans


def frequency(minutes: Any, **more: Any) -> Plan | None:
    plans = read_plans({"context": {"config-frequency": minutes}, **more}, "a")
    return plans[0] if plans else None


def job(**fields: Any) -> Plan:
    (plan,) = read_plans({"status": "active", "jobs": [{"name": "j", **fields}]}, "a")
    return plan


@pytest.mark.parametrize(
    ("minutes", "seconds"),
    [(10, 600), (0.1, 6), (0.5, 30), (0.03, 1.8), (1440, 86_400), ("15", 900), (" 0.2 ", 12)],
)
def test_a_frequency_is_in_minutes_and_starts_its_own_agent(minutes: Any, seconds: float) -> None:
    plan = frequency(minutes)
    assert plan is not None
    assert plan.interval == pytest.approx(seconds)
    assert (plan.key, plan.name, plan.type, plan.target) == ("frequency", "a", "agent", "a")
    assert (plan.payload, plan.once, plan.enabled, plan.error) == ({}, False, True, None)


@pytest.mark.parametrize("minutes", [0, -1, 0.0, "0", None])
def test_a_frequency_of_nothing_means_never(minutes: Any) -> None:
    assert frequency(minutes) is None


@pytest.mark.parametrize("minutes", [99999999, 525_600, 1e300, 10**30])
def test_a_frequency_of_a_year_or_more_means_once(minutes: Any) -> None:
    plan = frequency(minutes)
    assert plan is not None
    assert (plan.once, plan.interval, plan.error) == (True, None, None)


@pytest.mark.parametrize(
    "minutes", ["often", True, [], {}, float("nan"), float("inf"), "inf", "9" * 500, 10**400]
)
def test_a_frequency_that_is_no_number_is_shown_with_an_error(minutes: Any) -> None:
    plan = frequency(minutes)
    assert plan is not None
    assert plan.error is not None
    assert "number of minutes" in plan.error


@pytest.mark.parametrize(
    ("stored", "agent", "expected"),
    [
        (None, {}, False),
        (None, {"context": {"config-frequency": 10}}, True),
        (None, {"context": {"config-frequency": 10, "status": "inactive"}}, False),
        (None, {"context": {"status": "active"}}, True),
        (None, {"status": "inactive", "context": {"status": "active"}}, False),
        ("active", {"status": "inactive", "context": {"status": "inactive"}}, True),
        ("inactive", {"status": "active"}, False),
        (" Active ", {}, True),
        (True, {}, False),
        (None, {"status": None, "context": {"config-frequency": 1}}, True),
        (None, {"context": "text", "status": "active"}, True),
    ],
)
def test_the_top_level_status_wins_then_the_contexts_then_the_frequency(
    stored: Any, agent: dict[str, Any], expected: bool
) -> None:
    assert is_active(stored, agent) is expected


def test_an_agent_that_says_it_is_scheduled_otherwise_does_not_fire_by_frequency() -> None:
    plan = frequency(10, scheduled=True)
    assert plan is not None
    assert not plan.enabled


def test_jobs_follow_the_frequency_each_under_a_name_of_its_own() -> None:
    agent = {
        "context": {"config-frequency": 5},
        "jobs": [
            {"name": "x", "cron": "*/15 * * * *", "target": "b", "context": {"mode": "$.get('x')"}},
            {"name": "x", "interval": 90, "type": "skill", "target": "s"},
            {"interval": "30"},
        ],
    }
    plans = read_plans(agent, "a")
    assert [plan.name for plan in plans] == ["a", "a:x", "a:x-2", "a:job-3"]
    assert len({plan.key for plan in plans}) == 4
    assert plans[1].cron == "*/15 * * * *"
    assert plans[1].payload == {"mode": "$.get('x')"}, "expressions are the target's"
    assert (plans[2].type, plans[2].target, plans[2].interval) == ("skill", "s", 90)
    assert (plans[3].type, plans[3].target, plans[3].interval) == ("agent", "a", 30)


@pytest.mark.parametrize(
    ("value", "enabled"),
    [(True, True), (None, True), ("yes", True), (False, False), ("false", False), (0, False)],
)
def test_a_job_can_be_switched_off(value: Any, enabled: bool) -> None:
    assert job(cron="* * * * *", enabled=value).enabled is enabled


def test_a_job_of_an_inactive_agent_is_off() -> None:
    (plan,) = read_plans({"jobs": [{"name": "j", "cron": "* * * * *"}]}, "a", "inactive")
    assert not plan.enabled
    (plan,) = read_plans({"jobs": [{"name": "j", "cron": "* * * * *"}]}, "a")
    assert not plan.enabled, "a job alone does not make an agent active"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "neither 'cron' nor 'interval'"),
        ({"cron": 5}, "'cron' of the job must be text"),
        ({"interval": "soon"}, "number of seconds"),
        ({"cron": "* * * * *", "type": "planet"}, "'type' of the job"),
        ({"cron": "* * * * *", "type": "skill"}, "must name the skill"),
        ({"cron": "* * * * *", "target": 7}, "must name the agent"),
        ({"cron": "* * * * *", "context": [1]}, "must be a dictionary"),
    ],
)
def test_a_job_that_makes_no_sense_is_shown_with_what_to_change(
    fields: dict[str, Any], says: str
) -> None:
    error = job(**fields).error
    assert error is not None
    assert says in error


def test_a_job_that_is_no_dictionary_is_shown_with_an_error() -> None:
    (plan,) = read_plans({"status": "active", "jobs": ["daily"]}, "a")
    assert plan.error is not None
    assert "must be a dictionary" in plan.error


def test_one_job_without_a_list_counts_as_one() -> None:
    (plan,) = read_plans({"status": "active", "jobs": {"name": "j", "interval": 60}}, "a")
    assert plan.interval == 60


def test_cron_wins_over_an_interval_and_an_interval_of_nothing_is_off() -> None:
    both = job(cron="0 9 * * *", interval=5)
    assert (both.cron, both.interval, both.enabled) == ("0 9 * * *", None, True)
    nothing = job(interval=0)
    assert (nothing.interval, nothing.enabled, nothing.error) == (None, False, None)


def test_overlap_is_allowed_only_by_saying_so() -> None:
    assert job(interval=5, allow_overlap=True).allow_overlap
    assert not job(interval=5, allow_overlap="true").allow_overlap
    plan = read_plans({"context": {"config-frequency": 1, "allow_overlap": True}}, "a")[0]
    assert plan.allow_overlap


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=6), parts),
    max_leaves=8,
)
_JOB = st.dictionaries(
    st.sampled_from(["name", "enabled", "type", "target", "cron", "interval", "context"]), _ANY
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "status": _ANY,
            "scheduled": _ANY,
            "context": _ANY | st.dictionaries(st.just("config-frequency"), _ANY),
            "jobs": _ANY | st.lists(_JOB | _ANY, max_size=4),
        },
    ),
    _ANY,
)
def test_no_definition_makes_the_reader_fail(agent: dict[str, Any], status: Any) -> None:
    plans = read_plans(agent, "a", status)
    assert len({plan.key for plan in plans}) == len(plans)
    for plan in plans:
        said = [plan.interval is not None, plan.cron is not None, plan.once]
        assert plan.error is not None or sum(said) == 1 or not plan.enabled
