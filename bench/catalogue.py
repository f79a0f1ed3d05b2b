"""Every scenario, in the order of the report. A new one is a module and a line here."""

from __future__ import annotations

from typing import Final

from bench.result import Scenario
from bench.scenarios import (
    cost,
    engine,
    expressions,
    first_event,
    idle,
    in_flight,
    profile,
    quiet,
    redis_cost,
    replay,
    scaling,
)

SCENARIOS: Final[tuple[Scenario, ...]] = (
    cost.SCENARIO,
    redis_cost.SCENARIO,
    first_event.SERIAL,
    first_event.AFTER_IDLE,
    quiet.SCENARIO,
    in_flight.SCENARIO,
    idle.SCENARIO,
    expressions.SCENARIO,
    engine.SCENARIO,
    replay.SCENARIO,
    scaling.SCENARIO,
    profile.SCENARIO,
)
