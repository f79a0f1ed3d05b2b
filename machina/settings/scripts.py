"""Whether connector scripts run, where they are shut in, and how much they may take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode

Sandbox = Literal["auto", "3", "2", "1"]
Network = Literal["on", "open", "off"]

MEBIBYTE = 1024 * 1024


class ScriptSettings(BaseModel):
    """Scripts"""

    scripts: bool | None = Field(
        None,
        validation_alias="MACHINA_SCRIPTS",
        examples=["on"],
        description="Whether the Python scripts of connectors run. Unset: in `dev` they do, in "
        "production they do not.",
    )
    script_sandbox: Sandbox = Field(
        "auto",
        validation_alias="MACHINA_SCRIPT_SANDBOX",
        description="How scripts are shut in: `3` bubblewrap, `2` Landlock, `1` limits only; "
        "`auto` takes the highest that works here. Production accepts level 1 only by its number.",
    )
    script_network: Network = Field(
        "on",
        validation_alias="MACHINA_SCRIPT_NETWORK",
        description="What scripts reach of the network: `on` only what `MACHINA_EGRESS_ALLOW` lets "
        "connectors reach, where the level can hold them to it, `open` everything, `off` nothing.",
    )
    script_python: Path | None = Field(
        None,
        validation_alias="MACHINA_SCRIPT_PYTHON",
        examples=["/opt/scripts/bin/python"],
        description="Interpreter of the scripts; its packages are what they can import. "
        "Unset: the server's own.",
    )
    work_dir: Path | None = Field(
        None,
        validation_alias="MACHINA_WORK_DIR",
        examples=["/var/lib/machina/work"],
        description="Directory in which each run has one of its own for the files of its scripts. "
        "Unset: below the data directory, else a temporary one.",
    )
    script_env: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="MACHINA_SCRIPT_ENV",
        description="Names of environment variables that scripts may see, with commas between; "
        "all others are kept from them.",
    )
    script_seconds: float = Field(
        120,
        gt=0,
        le=86_400,
        validation_alias="MACHINA_SCRIPT_SECONDS",
        description="Longest call of a script.",
    )
    script_cpu_seconds: int = Field(
        60,
        ge=1,
        le=86_400,
        validation_alias="MACHINA_SCRIPT_CPU_SECONDS",
        description="Processor time that one process of a script may use.",
    )
    script_memory_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=64 * MEBIBYTE,
        validation_alias="MACHINA_SCRIPT_MEMORY_BYTES",
        description="Address space that one process of a script may have.",
    )
    script_processes: int = Field(
        64,
        ge=1,
        le=10_000,
        validation_alias="MACHINA_SCRIPT_PROCESSES",
        description="Processes and threads that one script may have.",
    )
    script_open_files: int = Field(
        128,
        ge=16,
        le=65_536,
        validation_alias="MACHINA_SCRIPT_OPEN_FILES",
        description="Files that one process of a script may hold open.",
    )
    script_file_bytes: int = Field(
        64 * MEBIBYTE,
        ge=4_096,
        validation_alias="MACHINA_SCRIPT_FILE_BYTES",
        description="Largest file that a script may write.",
    )
    script_directory_bytes: int = Field(
        256 * MEBIBYTE,
        ge=4_096,
        validation_alias="MACHINA_SCRIPT_DIRECTORY_BYTES",
        description="What the scripts of one run may keep in its directory, in all.",
    )
    script_reply_bytes: int = Field(
        16 * MEBIBYTE,
        ge=1_024,
        le=1024 * MEBIBYTE,
        validation_alias="MACHINA_SCRIPT_REPLY_BYTES",
        description="Largest answer of a script.",
    )
    script_children: int = Field(
        8,
        ge=1,
        le=1_000,
        validation_alias="MACHINA_SCRIPT_CHILDREN",
        description="Scripts that one worker process runs at once; further calls wait.",
    )

    @field_validator("script_env", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name for part in value.split(",") if (name := part.strip()))

    @property
    def runs_scripts(self) -> bool:
        """Whether scripts run: as the setting says; unset, in `dev` only."""
        if self.scripts is not None:
            return self.scripts
        return getattr(self, "environment", "production") == "dev"
