"""Where templates may come from, and how large they may be."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

PROTOCOLS: Final = ("http", "file")


class TemplateSettings(BaseModel):
    """Templates"""

    template_max_bytes: int = Field(
        50 * 1024 * 1024,
        ge=1_024,
        validation_alias="MACHINA_TEMPLATE_MAX_BYTES",
        description="Largest archive of a template, packed as well as unpacked.",
    )
    git_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="MACHINA_GIT_ALLOW",
        description="Protocols that templates may be cloned by beside https, with commas between: "
        "`http`, `file`.",
    )
    git_timeout_seconds: float = Field(
        120,
        gt=0,
        le=3_600,
        validation_alias="MACHINA_GIT_TIMEOUT_SECONDS",
        description="Longest clone of a repository with templates.",
    )
    git_max_bytes: int = Field(
        512 * 1024 * 1024,
        ge=65_536,
        validation_alias="MACHINA_GIT_MAX_BYTES",
        description="Largest clone of a repository with templates, on disk.",
    )
    git_token: SecretStr | None = Field(
        None,
        validation_alias="MACHINA_GIT_TOKEN",
        examples=["github_pat_..."],
        description="Token with which `templates install` clones private repositories; "
        "the API is given one with each request.",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        min_length=16,
        validation_alias="MACHINA_WEBHOOK_SECRET",
        examples=["a-long-random-text"],
        description="What `POST /system/templates-pushed` must carry in `X-Webhook-Secret`. "
        "Unset: that route refuses.",
    )

    @field_validator("git_allow", mode="before")
    @classmethod
    def _split_protocols(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part for item in value.split(",") if (part := item.strip().lower()))

    @field_validator("git_allow")
    @classmethod
    def _known_protocols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for protocol in value:
            if protocol not in (*PROTOCOLS, "https"):
                raise ValueError(f"'{protocol}' is none of {', '.join(PROTOCOLS)}")
        return value
