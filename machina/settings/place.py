"""Where a deployment lives and who may reach it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode

Environment = Literal["production", "dev"]


class PlaceSettings(BaseModel):
    """Place and manner"""

    environment: Environment = Field(
        "production",
        validation_alias="MACHINA_ENVIRONMENT",
        description="`dev` relaxes what production refuses; `machina-server dev` sets it.",
    )
    data_dir: Path | None = Field(
        None,
        validation_alias="MACHINA_DATA_DIR",
        examples=[".machina"],
        description="Directory of the embedded store; naming it chooses that store.",
    )
    host: str = Field(
        "127.0.0.1",
        validation_alias="MACHINA_HOST",
        description="Address the API listens on.",
    )
    port: int = Field(
        5003,
        ge=0,
        le=65_535,
        validation_alias="MACHINA_PORT",
        description="Port the API listens on.",
    )
    key_prefix: str = Field(
        "machina",
        pattern=r"^[A-Za-z0-9_-]{1,40}$",
        validation_alias="MACHINA_KEY_PREFIX",
        description="Prefix of every Redis key and channel; separates deployments on one Redis.",
    )
    allow_open_services: bool = Field(
        False,
        validation_alias="MACHINA_ALLOW_OPEN_SERVICES",
        description="Let production use a Redis or MongoDB without password "
        "beyond a private network.",
    )
    docs: bool = Field(
        True,
        validation_alias="MACHINA_DOCS",
        description="Whether `/docs` and `/openapi.json` are served.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="MACHINA_CORS_ORIGINS",
        description="Origins that browsers may call from, with commas between; `*` for all.",
    )
    env_file: Path = Field(
        Path(".env"),
        validation_alias="MACHINA_ENV_FILE",
        description="File with variables that count where the environment has none. "
        "Only the environment can name it.",
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return tuple(part for item in value.split(",") if (part := item.strip()))
