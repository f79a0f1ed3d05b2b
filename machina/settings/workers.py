"""How much one worker takes on, and where it tells what it does."""

from __future__ import annotations

from pydantic import BaseModel, Field


class WorkerSettings(BaseModel):
    """Workers"""

    worker_threads: int = Field(
        1_000,
        ge=1,
        le=100_000,
        validation_alias="MACHINA_WORKER_THREADS",
        description="Runs that one worker process executes at once.",
    )
    worker_processes: int = Field(
        1,
        ge=1,
        le=256,
        validation_alias="MACHINA_WORKER_PROCESSES",
        description="Number of processes that `machina-server worker` starts.",
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        validation_alias="MACHINA_METRICS_PORT",
        examples=[9103],
        description="Port on which `machina-server worker` serves its metrics, without a key. "
        "Unset: nowhere.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        validation_alias="MACHINA_METRICS_HOST",
        description="Address that the metrics port of a worker listens on.",
    )
