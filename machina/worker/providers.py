"""Which provider answers for a connector block: the routing table, and what is made of it.

The table is the operator's file, when `MACHINA_MODEL_ROUTES` names one, and below it the built-in
rules; docs/models.md describes both.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from machina.connectors.llm import (
    PROVIDERS,
    ChatDelta,
    ChatRequest,
    Embeddings,
    Provider,
    ProviderLimits,
    ProviderOptions,
    RoutedEmbedder,
    Vendor,
)
from machina.connectors.llm.route_file import MAX_FILE_BYTES, VARIABLE, read_routes
from machina.connectors.llm.routes import Route, RouteTable, default_table
from machina.errors import SettingsInvalid
from machina.settings import Settings
from machina.settings.reading import read_env_file

_SCRIPTED = "scripted"


class Providers:
    """The providers of one worker process, each made once."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        """Reads the operator's routing table, from a file: not on the event loop.

        `environ` holds the keys that the table names; the process's own, if it is not given.

        Raises:
            SettingsInvalid: the table cannot be used; the message names the rule and the remedy.
        """
        key = settings.openai_api_key
        configured = key is not None or settings.openai_base_url is not None
        self._options = ProviderOptions(
            base_url=settings.openai_base_url,
            api_key=key.get_secret_value() if key is not None else None,
            default_model=settings.model,
            default_embedding_model=settings.embedding_model,
            limits=ProviderLimits(
                first_byte_seconds=settings.model_first_token_seconds,
                between_tokens_seconds=settings.model_between_tokens_seconds,
                total_seconds=settings.model_total_seconds,
            ),
        )
        self._made: dict[Hashable, Vendor] = {}
        self._environ: Mapping[str, str] = environ or {}
        self._table = default_table(configured)
        if settings.model_routes is not None:
            if environ is None:
                self._environ = {**read_env_file(), **os.environ}
            self._table = self._with_file(settings.model_routes)

    def provider_for(self, connector: Mapping[str, Any]) -> Provider:
        """The provider that a prompt task's connector block leads to, with its model."""
        route = self.chat_route(connector)
        return _RoutedProvider(self._vendor(route), route.model)

    def embedder_for(self, connector: Mapping[str, Any]) -> RoutedEmbedder:
        """The embedder that a connector block leads to, with its model."""
        route = self.embedding_route(connector)
        is_local = route.provider == _SCRIPTED
        where = route.base_url or self._options.base_url or ""
        space = _SCRIPTED if is_local else f"{route.provider} {where} {route.model}"
        return _RoutedEmbedder(self._vendor(route), route.model, space)

    def chat_route(self, connector: Mapping[str, Any]) -> Route:
        """Where a prompt goes, with the model that will answer."""
        return self._with_model(self._table.chat_route(connector), self._options.default_model)

    def embedding_route(self, connector: Mapping[str, Any]) -> Route:
        """Where texts go to be embedded, with the model that will do it."""
        route = self._table.embedding_route(connector)
        return self._with_model(route, self._options.default_embedding_model)

    def serves(self, connector_name: str) -> bool:
        """Whether the table speaks of this connector, or it is a well-known model connector."""
        return self._table.serves(connector_name)

    async def aclose(self) -> None:
        """Closes pooled connections."""
        for vendor in self._made.values():
            await vendor.aclose()

    def _with_model(self, route: Route, default: str) -> Route:
        default = _SCRIPTED if route.provider == _SCRIPTED else default
        return replace(route, model=route.model or default)

    def _vendor(self, route: Route) -> Vendor:
        place = (route.provider, route.base_url, route.api_key_variable)
        if place not in self._made:
            self._made[place] = PROVIDERS[route.provider](self._options_for(route))
        return self._made[place]

    def _options_for(self, route: Route) -> ProviderOptions:
        options = self._options
        if route.base_url is not None:
            options = replace(
                options,
                base_url=route.base_url,
                base_url_variable=f"'base_url' in {VARIABLE}",
                api_key=None,
                api_key_variable=f"'api_key_variable' in {VARIABLE}",
            )
        if route.api_key_variable is not None:
            key = self._environ.get(route.api_key_variable)
            options = replace(options, api_key=key, api_key_variable=route.api_key_variable)
        return options

    def _with_file(self, path: Path) -> RouteTable:
        rules = read_routes(_read_file(path), str(path), PROVIDERS)
        for rule in (*rules.chat, *rules.embeddings):
            self._check(rule.route, path)
        defaults = self._table
        return RouteTable(
            chat=[*rules.chat, *defaults.chat],
            embeddings=[*rules.embeddings, *defaults.embeddings],
        )

    def _check(self, route: Route, path: Path) -> None:
        """Makes what a rule leads to, so that a mistake shows at the start and not in a run."""
        variable = route.api_key_variable
        if variable is not None and not self._environ.get(variable, "").strip():
            raise SettingsInvalid(
                f"{VARIABLE}={path}: a rule takes its key from {variable}, which is not set; "
                "set it for the workers, or correct the rule's 'api_key_variable'.",
                field=VARIABLE,
            )
        try:
            self._vendor(route)
        except SettingsInvalid as invalid:
            raise SettingsInvalid(f"{VARIABLE}={path}: {invalid.message}", field=VARIABLE) from None


class _RoutedProvider:
    """A provider that is asked for the model of its route."""

    def __init__(self, vendor: Vendor, model: str | None) -> None:
        self.name = vendor.name
        self._vendor = vendor
        self._model = model

    def chat(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """The vendor's own stream: nothing stands between it and the task."""
        return self._vendor.chat(replace(request, model=self._model))

    async def aclose(self) -> None:
        """The vendor is shared and stays open."""


class _RoutedEmbedder:
    """An embedder that is asked for the model of its route."""

    def __init__(self, vendor: Vendor, model: str | None, space: str) -> None:
        self._vendor = vendor
        self._model = model
        self.space = space

    async def embed(
        self, texts: Sequence[str], *, timeout_seconds: float | None = None
    ) -> Embeddings:
        """See `Embedder.embed`."""
        return await self._vendor.embed(texts, self._model, timeout_seconds=timeout_seconds)


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
        return content.decode()
    except (OSError, ValueError) as unreadable:
        raise SettingsInvalid(
            f"{VARIABLE}={path}: cannot be read ({unreadable}); "
            "name a readable text file or unset the variable.",
            field=VARIABLE,
        ) from None
