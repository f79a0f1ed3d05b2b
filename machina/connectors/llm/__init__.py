"""The providers of models: one line per provider in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from machina.connectors.llm.base import (
    ChatDelta,
    ChatRequest,
    Embedder,
    Embeddings,
    Message,
    Provider,
    RoutedEmbedder,
    Usage,
)
from machina.connectors.llm.openai_compatible import OpenAICompatibleProvider
from machina.connectors.llm.options import ProviderLimits, ProviderOptions
from machina.connectors.llm.scripted import ScriptedProvider

__all__ = [
    "PROVIDERS",
    "ChatDelta",
    "ChatRequest",
    "Embedder",
    "Embeddings",
    "Message",
    "OpenAICompatibleProvider",
    "Provider",
    "ProviderLimits",
    "ProviderOptions",
    "RoutedEmbedder",
    "ScriptedProvider",
    "Usage",
    "Vendor",
]


class Vendor(Provider, Embedder, Protocol):
    """Both ports at once, as every line of the table offers them."""


def _make_scripted(options: ProviderOptions) -> Vendor:
    return ScriptedProvider(pace_seconds=options.pace_seconds, limits=options.limits)


def _make_openai_compatible(options: ProviderOptions) -> Vendor:
    return OpenAICompatibleProvider(
        options.base_url,
        options.api_key,
        options.default_model,
        options.limits,
        default_embedding_model=options.default_embedding_model,
        key_variable=options.api_key_variable,
        url_variable=options.base_url_variable,
    )


PROVIDERS: Final[Mapping[str, Callable[[ProviderOptions], Vendor]]] = MappingProxyType(
    {
        ScriptedProvider.name: _make_scripted,
        OpenAICompatibleProvider.name: _make_openai_compatible,
    }
)
"""How each provider is made, by the name that definitions and settings use."""
