"""How much one worker takes on."""

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
