"""What an agent asks the scheduler for: its frequency and its jobs, read without ever failing.

A definition that makes no sense becomes a plan with an error, so that it is shown and not lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from machina.definitions.base import Authored

TargetType = Literal["agent", "skill", "workflow"]

YEAR_SECONDS: Final = 365 * 86_400
"""An interval of a year or more means "once, right after installation"."""
FREQUENCY: Final = "config-frequency"
MAX_JOBS: Final = 100
_MAX_TEXT: Final = 200
_TYPES: Final = ("agent", "skill", "workflow")
_ACTIVE: Final = "active"


@dataclass(frozen=True, slots=True)
class Plan:
    """One thing that an agent wants done again and again."""

    key: str
    """What tells it from the agent's other plans: `frequency`, or the name of the job."""
    name: str
    type: TargetType
    target: str
    payload: dict[str, Any]
    """Passed as it is; expressions in it belong to the target."""
    interval: float | None = None
    """Seconds from one due time to the next; None with `cron` or an error."""
    cron: str | None = None
    timezone: str | None = None
    once: bool = False
    allow_overlap: bool = False
    enabled: bool = True
    """The agent is active, and the job is not switched off."""
    error: str | None = None
    """Why it can never fire; says what to change."""


def is_active(status: object, agent: Authored) -> bool:
    """Whether an agent is scheduled at all.

    Its own status decides; without one that of its context, and without that an agent with a
    frequency is (machina-format.md 11.4).
    """
    context = _context(agent)
    for word in (status, agent.get("status"), context.get("status")):
        if word is not None:
            return isinstance(word, str) and word.strip().lower() == _ACTIVE
    return context.get(FREQUENCY) is not None


def read_plans(agent: Authored, name: str, status: object = None) -> list[Plan]:
    """Everything that an agent wants scheduled, its frequency first.

    Args:
        agent: The definition as authored.
        name: Its name in the store.
        status: Its top-level status in the store, which wins over what the definition says.
    """
    active = is_active(status, agent)
    frequency = _read_frequency(agent, name, active)
    plans = [] if frequency is None else [frequency]
    taken = {plan.key for plan in plans}
    for number, job in enumerate(_jobs(agent), start=1):
        plan = _read_job(job, name, active, number, taken)
        taken.add(plan.key)
        plans.append(plan)
    return plans


def _read_frequency(agent: Authored, name: str, active: bool) -> Plan | None:
    """The plan of `context.config-frequency`, in minutes; zero or less means never: no plan."""
    context = _context(agent)
    if context.get(FREQUENCY) is None:
        return None
    minutes = _number(context[FREQUENCY])
    if minutes is not None and minutes <= 0:
        return None
    seconds = None if minutes is None else minutes * 60
    error = None
    if seconds is None:
        error = f"'{FREQUENCY}' must be a number of minutes, as 10 or 0.5."
    once = seconds is not None and seconds >= YEAR_SECONDS
    return Plan(
        key="frequency",
        name=name,
        type="agent",
        target=name,
        payload={},
        interval=None if once else seconds,
        once=once,
        allow_overlap=_is_true(context, "allow_overlap", "allow-overlap"),
        # An agent that says it is scheduled by something else does not fire by its frequency
        # (http-api.md 2.2).
        enabled=active and agent.get("scheduled") is not True,
        error=error,
    )


def _read_job(job: object, agent: str, active: bool, number: int, taken: set[str]) -> Plan:
    fields: Authored = job if isinstance(job, Mapping) else {}
    label = _text(fields.get("name")) or f"job-{number}"
    key = f"job:{label}"
    if key in taken:
        label = f"{label}-{number}"
        key = f"job:{label}"
    type_, target, error = _read_target(fields, agent)
    interval, cron, timing_error = _read_timing(fields)
    payload = fields.get("context")
    if payload is not None and not isinstance(payload, Mapping):
        error = error or "'context' of the job must be a dictionary."
        payload = None
    if not isinstance(job, Mapping):
        error = "A job must be a dictionary with 'name', 'target' and 'cron' or 'interval'."
    once = interval is not None and interval >= YEAR_SECONDS
    return Plan(
        key=key,
        name=f"{agent}:{label}",
        type=type_,
        target=target,
        payload={str(k): v for k, v in (payload or {}).items()},
        interval=None if once else interval,
        cron=cron,
        timezone=_text(fields.get("timezone")),
        once=once,
        allow_overlap=_is_true(fields, "allow_overlap", "allow-overlap"),
        enabled=active and _is_on(fields.get("enabled")) and not _is_never(fields),
        error=error or timing_error,
    )


def _read_target(job: Authored, agent: str) -> tuple[TargetType, str, str | None]:
    """Type and target; an agent that names no target means itself."""
    word = job.get("type")
    type_ = word.strip().lower() if isinstance(word, str) and word.strip() else "agent"
    if type_ not in _TYPES:
        return "agent", agent, f"'type' of the job must be one of {', '.join(_TYPES)}."
    target = _text(job.get("target"))
    if target is None:
        if type_ == "agent" and job.get("target") is None:
            return "agent", agent, None
        return cast("TargetType", type_), agent, f"'target' of the job must name the {type_}."
    return cast("TargetType", type_), target, None


def _read_timing(job: Authored) -> tuple[float | None, str | None, str | None]:
    """Interval in seconds, or cron, or why there is neither; cron wins over an interval."""
    if job.get("cron") is not None:
        cron = _text(job["cron"])
        if cron is None:
            return None, None, "'cron' of the job must be text, as '*/15 * * * *'."
        return None, " ".join(cron.split()), None
    if job.get("interval") is None:
        return None, None, "The job has neither 'cron' nor 'interval'."
    seconds = _number(job["interval"])
    if seconds is None:
        return None, None, "'interval' of the job must be a number of seconds."
    return (seconds if seconds > 0 else None), None, None


def _is_never(job: Authored) -> bool:
    """An interval of zero or less: switched off, like a frequency of zero."""
    if job.get("cron") is not None:
        return False
    seconds = _number(job.get("interval"))
    return seconds is not None and seconds <= 0


def _jobs(agent: Authored) -> Iterator[object]:
    jobs = agent.get("jobs")
    if isinstance(jobs, Mapping):  # a single job, written without the list
        jobs = [jobs]
    if isinstance(jobs, list):
        yield from jobs[:MAX_JOBS]


def _context(agent: Authored) -> Authored:
    context = agent.get("context")
    return context if isinstance(context, Mapping) else {}


def _number(value: object) -> float | None:
    """A finite number, also one written as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) <= _MAX_TEXT:
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> str | None:
    """Printable text of a bearable length; None for anything else."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    return text if text and len(text) <= _MAX_TEXT and text.isprintable() else None


def _is_on(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() not in ("false", "no", "off", "0")
    return value is None or bool(value)


def _is_true(fields: Authored, *keys: str) -> bool:
    return any(fields.get(key) is True for key in keys)
