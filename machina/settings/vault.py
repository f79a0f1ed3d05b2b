"""What protects secrets at rest, and what the API accepts as a file."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class VaultSettings(BaseModel):
    """Secrets and uploads"""

    vault_key: SecretStr | None = Field(
        None,
        validation_alias="MACHINA_VAULT_KEY",
        examples=["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="],
        description="Key that encrypts secrets in the store: 32 random bytes in base64. "
        "Several with commas between: the first encrypts, all decrypt. "
        "API and workers need the same; `dev` makes its own.",
    )
    max_upload_bytes: int = Field(
        20_971_520,
        ge=1_024,
        validation_alias="MACHINA_MAX_UPLOAD_BYTES",
        description="Largest request with files for a connector.",
    )
