"""Which provider of models answers for a prompt task's connector block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machina.connectors.llm import PROVIDERS, Provider, ProviderLimits, ProviderOptions
from machina.settings import Settings


class Providers:
    """The providers of one worker process, each made once."""

    def __init__(self, settings: Settings) -> None:
        key = settings.openai_api_key
        configured = key is not None or settings.openai_base_url is not None
        self._default = "openai-compatible" if configured else "scripted"
        self._options = ProviderOptions(
            base_url=settings.openai_base_url,
            api_key=key.get_secret_value() if key is not None else None,
            default_model=settings.model,
            limits=ProviderLimits(
                first_byte_seconds=settings.model_first_token_seconds,
                between_tokens_seconds=settings.model_between_tokens_seconds,
                total_seconds=settings.model_total_seconds,
            ),
        )
        self._made: dict[str, Provider] = {}

    def provider_for(self, connector: Mapping[str, Any]) -> Provider:
        """The provider a connector block names, if it is one of ours; else the configured one."""
        named = connector.get("provider")
        name = named if isinstance(named, str) and named in PROVIDERS else self._default
        if name not in self._made:
            self._made[name] = PROVIDERS[name](self._options)
        return self._made[name]

    async def aclose(self) -> None:
        """Closes pooled connections."""
        for provider in self._made.values():
            await provider.aclose()
