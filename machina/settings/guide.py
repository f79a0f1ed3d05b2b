"""The deployment guide's ten variables, with the guide's own names."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from machina.settings.urls import require_scheme

LogLevel = Literal["debug", "info", "warning", "error", "critical"]


class GuideSettings(BaseModel):
    """The deployment guide's ten"""

    redis_url: str | None = Field(
        None,
        validation_alias="REDIS_URL",
        examples=["redis://localhost:6379/0"],
        description="Redis of the queue and the circuit breaker.",
    )
    redis_pubsub_url: str | None = Field(
        None,
        validation_alias="REDIS_PUBSUB_URL",
        examples=["redis://localhost:6379/1"],
        description="Redis of the event log, its bells and cancel signals. "
        "Unset: the same as `REDIS_URL`.",
    )
    mongodb_url: str | None = Field(
        None,
        validation_alias="MONGODB_URL",
        examples=["mongodb://localhost:27017/machina"],
        description="MongoDB with definitions, documents and runs. "
        "Unset: the embedded store under `MACHINA_DATA_DIR`.",
    )
    gunicorn_workers: int = Field(
        1,
        ge=1,
        le=64,
        validation_alias="GUNICORN_WORKERS",
        description="Number of API processes; each has a listening socket of its own.",
    )
    max_concurrent_streams: int = Field(
        10,
        ge=1,
        le=100_000,
        validation_alias="MAX_CONCURRENT_STREAMS",
        description="Streams that one API process starts at once; one more is answered 429.",
    )
    stream_timeout_seconds: float = Field(
        300,
        gt=0,
        le=86_400,
        validation_alias="STREAM_TIMEOUT_SECONDS",
        description="Longest streamed run, from its first claim and over all its attempts.",
    )
    circuit_breaker_threshold: int = Field(
        5,
        ge=1,
        le=1_000,
        validation_alias="CIRCUIT_BREAKER_THRESHOLD",
        description="Consecutive server-side failures that open the circuit breaker.",
    )
    log_level: LogLevel = Field(
        "info",
        validation_alias="LOG_LEVEL",
        description="Least severe log line that is written.",
    )
    schedulers: bool = Field(
        False,
        validation_alias="SCHEDULERS",
        description="Whether the API process also runs the scheduler.",
    )
    machina_client_version: str = Field(
        "2.0.0",
        min_length=1,
        max_length=50,
        validation_alias="MACHINA_CLIENT_VERSION",
        description="What the API says its version is.",
    )

    @field_validator("redis_url", "redis_pubsub_url")
    @classmethod
    def _redis_scheme(cls, value: str | None) -> str | None:
        return require_scheme(value, ("redis", "rediss", "unix"), "redis://localhost:6379/0")

    @field_validator("mongodb_url")
    @classmethod
    def _mongodb_scheme(cls, value: str | None) -> str | None:
        return require_scheme(
            value, ("mongodb", "mongodb+srv"), "mongodb://localhost:27017/machina"
        )

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def log_redis_url(self) -> str | None:
        """The Redis of the event log."""
        return self.redis_pubsub_url or self.redis_url
