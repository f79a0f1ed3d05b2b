"""Which base URL a call goes to: the first server of the document, its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from machina.connectors.base import ConnectorCall
from machina.connectors.rest.model import Server
from machina.connectors.rest.texts import text_of
from machina.errors import ConnectorFailed

_VARIABLE: Final = re.compile(r"\{([^{}]*)\}")
_SAFE: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?")
"""What a task may put into a base URL; it can be no path, port or user name."""


def base_url(server: Server | None, fallback: Server | None, call: ConnectorCall) -> str:
    """The URL that paths are appended to, without a slash at its end.

    A relative server is completed by the task's `connector.url`, else by the document's first
    server when that is another one.

    Raises:
        ConnectorFailed: `connector_failed`, the document has no absolute server.
    """
    own = _filled(server, call) if server is not None else ""
    for candidate in (own, _filled(fallback, call) if fallback is not None else ""):
        if "://" in candidate:
            return candidate.rstrip("/") if candidate is own else _join(candidate, own)
        if candidate.startswith("//"):
            return "https:" + candidate.rstrip("/")
    given = call.block.get("url")
    if isinstance(given, str) and "://" in given:
        return _join(given, own)
    raise ConnectorFailed(
        f"Connector '{call.name}' has no server to call for {call.where}: its OpenAPI document "
        "needs an absolute URL in servers[0].url."
    )


def _join(base: str, relative: str) -> str:
    if not relative.strip("/."):
        return base.rstrip("/")
    if relative.startswith("/"):
        scheme, _, rest = base.partition("://")
        base = f"{scheme}://{rest.partition('/')[0]}"
    return f"{base.rstrip('/')}/{relative.strip('/')}"


def _filled(server: Server, call: ConnectorCall) -> str:
    """The variables: from command_attribute, the connector's context variables, the default."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        default, allowed = server.variables.get(name, (None, ()))
        for source in _sources(call):
            if source.get(name) is not None:
                text = text_of(source[name]).strip()
                if (text in allowed) if allowed else _SAFE.fullmatch(text):
                    return text
                raise ConnectorFailed(
                    f"Connector '{call.name}' cannot be called for {call.where}: the value for "
                    f"'{name}' in its server URL is not allowed there."
                )
        if default is None:
            raise ConnectorFailed(
                f"Connector '{call.name}' cannot be called for {call.where}: its server URL needs "
                f"a value for '{name}'; give it in command_attribute."
            )
        return text_of(default)

    return _VARIABLE.sub(fill, server.url)


def _sources(call: ConnectorCall) -> tuple[Mapping[str, Any], ...]:
    return call.attributes, call.credentials
