"""The providers of models: one line per provider in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from machina.connectors.llm.base import ChatDelta, ChatRequest, Message, Provider, Usage
from machina.connectors.llm.openai_compatible import OpenAICompatibleProvider
from machina.connectors.llm.options import ProviderLimits, ProviderOptions
from machina.connectors.llm.scripted import ScriptedProvider

__all__ = [
    "PROVIDERS",
    "ChatDelta",
    "ChatRequest",
    "Message",
    "OpenAICompatibleProvider",
    "Provider",
    "ProviderLimits",
    "ProviderOptions",
    "ScriptedProvider",
    "Usage",
]


def _make_scripted(options: ProviderOptions) -> Provider:
    return ScriptedProvider(pace_seconds=options.pace_seconds, limits=options.limits)


def _make_openai_compatible(options: ProviderOptions) -> Provider:
    return OpenAICompatibleProvider(
        options.base_url, options.api_key, options.default_model, options.limits
    )


PROVIDERS: Final[Mapping[str, Callable[[ProviderOptions], Provider]]] = MappingProxyType(
    {
        ScriptedProvider.name: _make_scripted,
        OpenAICompatibleProvider.name: _make_openai_compatible,
    }
)
"""How each provider is made, by the name that definitions and settings use."""
