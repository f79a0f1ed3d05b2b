"""Which model answers, and how long it may take."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, field_validator

from machina.settings.urls import require_scheme


class ModelSettings(BaseModel):
    """Models"""

    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias="OPENAI_API_KEY",
        examples=["sk-..."],
        description="Key of the OpenAI-compatible provider. "
        "Neither key nor base URL set: the scripted model answers.",
    )
    openai_base_url: str | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        examples=["https://api.openai.com/v1"],
        description="Base URL of the OpenAI-compatible provider. Unset: OpenAI's own.",
    )
    model: str = Field(
        "gpt-4o-mini",
        min_length=1,
        validation_alias="MACHINA_MODEL",
        description="Model of prompts that were not written for the provider's own models.",
    )
    embedding_model: str = Field(
        "text-embedding-3-small",
        min_length=1,
        validation_alias="MACHINA_EMBEDDING_MODEL",
        description="Embedding model of the OpenAI-compatible provider.",
    )
    model_routes: Path | None = Field(
        None,
        validation_alias="MACHINA_MODEL_ROUTES",
        examples=["/etc/machina/models.yml"],
        description="File that says which provider and model stand in for a template's; "
        "see docs/models.md.",
    )
    model_first_token_seconds: float = Field(
        30,
        gt=0,
        validation_alias="MACHINA_MODEL_FIRST_TOKEN_SECONDS",
        description="Longest wait for the first byte of a model's answer.",
    )
    model_between_tokens_seconds: float = Field(
        30,
        gt=0,
        validation_alias="MACHINA_MODEL_BETWEEN_TOKENS_SECONDS",
        description="Longest silence within a model's answer.",
    )
    model_total_seconds: float = Field(
        600,
        gt=0,
        validation_alias="MACHINA_MODEL_TOTAL_SECONDS",
        description="Longest answer of a model, in all.",
    )

    @field_validator("openai_base_url")
    @classmethod
    def _http_scheme(cls, value: str | None) -> str | None:
        return require_scheme(value, ("http", "https"), "https://api.openai.com/v1")
