"""Finds the description of an API in a connector's definition, and keeps what it compiled to."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import orjson

from machina.connectors.rest.legacy import aliases, is_legacy, translate
from machina.connectors.rest.openapi import Api
from machina.definitions.loading import YamlInvalid, load_documents
from machina.errors import ConnectorFailed

MAX_CHARACTERS: Final = 16_000_000
KEPT: Final = 128
"""APIs kept compiled; the public corpus has 31."""
KEPT_CHARACTERS: Final = 64_000_000
_LARGE: Final = 50_000


class Apis:
    """Compiled APIs by the content of their description, the least used dropped first."""

    def __init__(self) -> None:
        self._known: OrderedDict[str | bytes, Api] = OrderedDict()
        self._characters = 0

    async def of(self, name: str, definition: Mapping[str, Any]) -> Api:
        """The API that a connector describes.

        Raises:
            ConnectorFailed: `connector_failed`, there is no description or it cannot be read.
        """
        source = find_source(definition)
        if source is None:
            raise _unreadable(name, "has no OpenAPI document", "install its file, or give apiSpec")
        key = (
            source
            if isinstance(source, str)
            else orjson.dumps(source, default=str, option=orjson.OPT_NON_STR_KEYS)
        )
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        if len(key) > MAX_CHARACTERS:
            raise _unreadable(name, "has an OpenAPI document that is too large", "shorten it")
        if len(key) > _LARGE:
            api = await asyncio.to_thread(_compile, name, source)
        else:
            api = _compile(name, source)
        self._keep(key, api)
        return api

    def _keep(self, key: str | bytes, api: Api) -> None:
        if key not in self._known:
            self._characters += len(key)
        self._known[key] = api
        while len(self._known) > KEPT or self._characters > KEPT_CHARACTERS:
            dropped, _ = self._known.popitem(last=False)
            self._characters -= len(dropped)


def find_source(definition: Mapping[str, Any]) -> str | Mapping[str, Any] | None:
    """The text or the mapping that describes the API: file, inline, or the home-grown form."""
    for field in ("filecontent", "apiSpec"):
        source = definition.get(field)
        if isinstance(source, Mapping) and source:
            return source
        if isinstance(source, str) and source.strip():
            return source
    if is_legacy(definition):
        fields = ("version", "scheme", "host", "base_path", "auth", "commands")
        return {key: definition[key] for key in fields if key in definition}
    return None


def _compile(name: str, source: str | Mapping[str, Any]) -> Api:
    document = _parse(name, source) if isinstance(source, str) else source
    if is_legacy(document) and "paths" not in document:
        return Api(translate(document), aliases(document))
    if not isinstance(document.get("paths"), Mapping):
        raise _unreadable(name, "has an OpenAPI document without paths", "correct its file")
    return Api(document)


def _parse(name: str, text: str) -> Mapping[str, Any]:
    text = text.lstrip("\ufeff \t\r\n")
    try:
        document = orjson.loads(text) if text.startswith("{") else None
    except ValueError:
        document = None  # a YAML mapping may begin with a brace, too
    if document is None:
        try:
            documents = load_documents(text.encode())
        except YamlInvalid as wrong:
            problem = f"has an OpenAPI document that is neither JSON nor YAML: {wrong.message}"
            raise _unreadable(name, problem.rstrip("."), "correct its file") from None
        document = documents[0] if documents else None
    if not isinstance(document, Mapping):
        raise _unreadable(name, "has an OpenAPI document that is no mapping", "correct its file")
    return document


def _unreadable(name: str, problem: str, remedy: str) -> ConnectorFailed:
    return ConnectorFailed(f"Connector '{name}' {problem}; {remedy} and install it again.")
