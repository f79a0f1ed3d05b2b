"""How installed schedules begin, how often they may fire, and what is made up for."""

from __future__ import annotations

from pydantic import BaseModel, Field


class SchedulerSettings(BaseModel):
    """Scheduler"""

    schedules_start_paused: bool = Field(
        False,
        validation_alias="MACHINA_SCHEDULES_START_PAUSED",
        description="Whether a schedule that is new waits until somebody resumes it. "
        "One-shots run all the same.",
    )
    one_shots: bool = Field(
        True,
        validation_alias="MACHINA_ONE_SHOTS",
        description="Whether agents with a frequency of a year or more run once after "
        "installation.",
    )
    schedule_min_seconds: float = Field(
        5,
        ge=0.1,
        le=86_400,
        validation_alias="MACHINA_SCHEDULE_MIN_SECONDS",
        description="Shortest time between two runs of one schedule; what asks for less gets this.",
    )
    schedule_catch_up_seconds: float = Field(
        86_400,
        ge=0,
        le=31_536_000,
        validation_alias="MACHINA_SCHEDULE_CATCH_UP_SECONDS",
        description="How late a missed run is still made up for, once; at least half a minute.",
    )
