"""How long a run may take, how often it may be tried, and how long it is remembered."""

from __future__ import annotations

from pydantic import BaseModel, Field


class RunSettings(BaseModel):
    """Runs"""

    run_timeout_seconds: float = Field(
        3_600,
        gt=0,
        validation_alias="MACHINA_RUN_TIMEOUT_SECONDS",
        description="Longest background run, from its first claim and over all its attempts.",
    )
    queue_timeout_seconds: float = Field(
        600,
        gt=0,
        validation_alias="MACHINA_QUEUE_TIMEOUT_SECONDS",
        description="Longest wait of a run for its first worker.",
    )
    max_attempts: int = Field(
        3,
        ge=1,
        le=20,
        validation_alias="MACHINA_MAX_ATTEMPTS",
        description="Attempts that may die or fail before the run fails.",
    )
    lease_seconds: float = Field(
        3.5,
        ge=1,
        le=60,
        validation_alias="MACHINA_LEASE_SECONDS",
        description="Silence of a worker process after which its runs go to another.",
    )


class LogSettings(BaseModel):
    """The log"""

    log_retention_seconds: float = Field(
        86_400,
        gt=0,
        validation_alias="MACHINA_LOG_RETENTION_SECONDS",
        description="How long a finished run can be replayed.",
    )
    outbox_bytes: int = Field(
        67_108_864,
        ge=65_536,
        validation_alias="MACHINA_OUTBOX_BYTES",
        description="Events a worker process holds while Redis is away, in bytes.",
    )
    outbox_seconds: float = Field(
        30,
        gt=0,
        validation_alias="MACHINA_OUTBOX_SECONDS",
        description="How long a worker holds events while Redis is away "
        "before it hands the run back.",
    )
