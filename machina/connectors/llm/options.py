"""What a provider is made from: where it is, what it may cost, how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class ProviderLimits:
    """When a provider has taken too long or said too much. Every wait on it has an end."""

    connect_seconds: float = 5.0
    first_byte_seconds: float = 30.0
    """From sending the request to the first byte of the answer's body."""
    between_tokens_seconds: float = 30.0
    """Longest silence after that; any byte counts, a comment that keeps alive too."""
    total_seconds: float = 600.0
    """All tries and waits of one call together."""
    after_finish_seconds: float = 5.0
    """How long to wait for usage and the end once the reason for finishing is known."""
    max_line_bytes: int = 1024 * 1024
    """One line of the stream."""
    max_answer_bytes: int = 4 * 1024 * 1024
    """UTF-8 bytes of the answer's text."""

    def total_for(self, timeout_seconds: float | None) -> float:
        """The total limit of a call that wants to end after `timeout_seconds`, if it says so."""
        if timeout_seconds is None:
            return self.total_seconds
        return min(self.total_seconds, max(timeout_seconds, 0.0))


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """What every factory of the provider table takes; each reads what concerns it."""

    default_model: str = "gpt-4o-mini"
    default_embedding_model: str = "text-embedding-3-small"
    base_url: str | None = None
    """None: OpenAI's own."""
    base_url_variable: str = "OPENAI_BASE_URL"
    """Where the base URL comes from, for messages."""
    api_key: str | None = field(default=None, repr=False)
    api_key_variable: str = "OPENAI_API_KEY"
    """Where the key comes from, for messages."""
    limits: ProviderLimits = field(default_factory=ProviderLimits)
    pace_seconds: float = 2.0
    """How long the scripted model takes for its answer."""
