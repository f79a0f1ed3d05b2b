"""What one API process allows its streams and its callers."""

from __future__ import annotations

from pydantic import BaseModel, Field


class StreamSettings(BaseModel):
    """Streams"""

    max_viewers: int = Field(
        10_000,
        ge=1,
        validation_alias="MACHINA_MAX_VIEWERS",
        description="Streams one API process relays at once, joins and resumes included.",
    )
    gate_wait_seconds: float = Field(
        0.05,
        ge=0,
        le=5,
        validation_alias="MACHINA_GATE_WAIT_SECONDS",
        description="How long a start waits for a free place before it is answered 429.",
    )
    breaker_cool_down_seconds: float = Field(
        15,
        gt=0,
        le=3_600,
        validation_alias="MACHINA_BREAKER_COOL_DOWN_SECONDS",
        description="How long an open circuit breaker refuses before it lets one probe through.",
    )
    heartbeat_seconds: float = Field(
        10,
        gt=0,
        le=300,
        validation_alias="MACHINA_HEARTBEAT_SECONDS",
        description="Silence on a stream after which a heartbeat is sent.",
    )
    send_timeout_seconds: float = Field(
        30,
        gt=0,
        validation_alias="MACHINA_SEND_TIMEOUT_SECONDS",
        description="How long a client may refuse to read before its stream is closed.",
    )
    drain_seconds: float = Field(
        3,
        ge=0,
        validation_alias="MACHINA_DRAIN_SECONDS",
        description="How long open streams may still finish after SIGTERM.",
    )
    max_connection_seconds: float | None = Field(
        None,
        gt=0,
        validation_alias="MACHINA_MAX_CONNECTION_SECONDS",
        examples=[7200],
        description="Age at which a stream is ended at an event boundary, to be resumed. "
        "Must exceed the run and queue limits. Unset: no limit.",
    )
    sync_wait_seconds: float = Field(
        25,
        gt=0,
        le=600,
        validation_alias="MACHINA_SYNC_WAIT_SECONDS",
        description="How long a synchronous call waits for its run before it answers as queued. "
        "The official CLI gives up after 30.",
    )
    max_body_bytes: int = Field(
        1_048_576,
        ge=1_024,
        validation_alias="MACHINA_MAX_BODY_BYTES",
        description="Largest request body.",
    )
