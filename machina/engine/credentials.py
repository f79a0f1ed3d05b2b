"""`context-variables`: per connector, the fields that its tasks see by their bare names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from machina.definitions import Kind
from machina.definitions.base import Authored
from machina.engine.context import RunContext

SECRET_TOKEN: Final = re.compile(r"\$([A-Z][A-Z0-9_]*_CONTEXT_VARIABLE_[A-Z0-9_]+)\Z")
DEBUGGER: Final = "debugger"
"""A switch of the run log, written as if it were a connector."""


class Fields(dict[str, Any]):
    """Resolved fields. `unset` has, by field, the name of the secret that nobody provides."""

    __slots__ = ("unset",)

    def __init__(self, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(fields or {})
        self.unset: dict[str, str] = dict(getattr(fields, "unset", {}))


class Credentials:
    """The groups of one workflow. Values that are secret tokens are resolved, others are kept."""

    def __init__(
        self, layers: Iterable[Mapping[str, Any]], secrets: Callable[[str], Any] | None
    ) -> None:
        """`layers` are the groups of the workflow, then of its agent: the first one wins."""
        self._groups: dict[str, Fields] = {}
        for layer in layers:
            for connector, fields in layer.items():
                if connector != DEBUGGER and isinstance(fields, Mapping):
                    group = self._groups.setdefault(connector, Fields())
                    lay_under(group, resolve_fields(fields, secrets))

    def own(self, connector: object, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The fields of this connector's group; they hide state variables of the same name.

        `defaults` are the connector's own, which count where the groups have no value. A secret
        nobody provides is null here, not the state variable: that one may be somebody else's
        credential.
        """
        group = self._groups.get(connector) if isinstance(connector, str) else None
        group = Fields() if group is None else group
        if not defaults:
            return group
        own = Fields(group)
        lay_under(own, defaults)
        return own

    def others(self, connector: object) -> dict[str, Any]:
        """The fields of all other groups that have a value; state variables hide them."""
        found: dict[str, Any] = {}
        for name, group in self._groups.items():
            if name != connector:
                for key, value in group.items():
                    if value is not None:
                        found.setdefault(key, value)
        return found


def is_debugged(layers: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the run log keeps the inputs and outputs of tasks; the first layer to say so wins."""
    for layer in layers:
        group = layer.get(DEBUGGER)
        if isinstance(group, Mapping) and "enabled" in group:
            return group["enabled"] is True
    return False


async def connector_defaults(ctx: RunContext, connector: object) -> Mapping[str, Any]:
    """The connector's own `context-variables`, resolved; read once per run.

    Raises:
        StoreDown: the store stayed away.
    """
    if not isinstance(connector, str) or not connector:
        return {}
    if connector not in ctx.connector_defaults:
        definition = await ctx.doors.definition(Kind.CONNECTOR, connector)
        fields = flat_fields(definition or {})
        ctx.connector_defaults[connector] = resolve_fields(fields, ctx.secrets)
    return ctx.connector_defaults[connector]


def flat_fields(definition: Authored) -> Mapping[str, Any]:
    """A connector's own `context-variables`: flat, or, as in workflows, under its name."""
    fields = definition.get("context-variables")
    if not isinstance(fields, Mapping):
        return {}
    named = fields.get(definition.get("name"))
    return named if isinstance(named, Mapping) else fields


def resolve_fields(fields: Mapping[str, Any], secrets: Callable[[str], Any] | None) -> Fields:
    """The fields with every value that is a token replaced by its secret."""
    resolved = Fields({str(name): _resolve(value, secrets) for name, value in fields.items()})
    for name, value in fields.items():
        token = SECRET_TOKEN.match(value.strip()) if isinstance(value, str) else None
        if token is not None and resolved[str(name)] is None:
            resolved.unset[str(name)] = token[1]
    return resolved


def lay_under(fields: Fields, more: Mapping[str, Any]) -> None:
    """Fills in what is missing or null."""
    for name, value in more.items():
        if fields.get(name) is None:
            fields[name] = value
    for name, secret in getattr(more, "unset", {}).items():
        fields.unset.setdefault(name, secret)


def _resolve(value: Any, secrets: Callable[[str], Any] | None) -> Any:
    if isinstance(value, Mapping):
        return {key: _resolve(inner, secrets) for key, inner in value.items()}
    token = SECRET_TOKEN.match(value.strip()) if isinstance(value, str) else None
    if token is None:
        return value
    return None if secrets is None else secrets(token[1])
