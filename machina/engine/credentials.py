"""`context-variables`: per connector, the fields that its tasks see by their bare names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

SECRET_TOKEN: Final = re.compile(r"\$([A-Z][A-Z0-9_]*_CONTEXT_VARIABLE_[A-Z0-9_]+)\Z")
_DEBUGGER: Final = "debugger"
"""A switch of the run log, written as if it were a connector."""


class Credentials:
    """The groups of one workflow. Values that are secret tokens are resolved, others are kept."""

    def __init__(
        self, layers: Iterable[Mapping[str, Any]], secrets: Callable[[str], Any] | None
    ) -> None:
        """`layers` are the groups of the workflow, then of its agent: the first one wins."""
        self._groups: dict[str, dict[str, Any]] = {}
        for layer in layers:
            for connector, fields in layer.items():
                if connector != _DEBUGGER and isinstance(fields, Mapping):
                    group = self._groups.setdefault(connector, {})
                    for name, value in fields.items():
                        group.setdefault(str(name), _resolve(value, secrets))

    def own(self, connector: str | None) -> dict[str, Any]:
        """The fields of this connector's group; they hide state variables of the same name.

        A secret nobody provides is null here, not the state variable: that one may be somebody
        else's credential.
        """
        return self._groups.get(connector, {}) if connector is not None else {}

    def others(self, connector: str | None) -> dict[str, Any]:
        """The fields of all other groups that have a value; state variables hide them."""
        found: dict[str, Any] = {}
        for name, group in self._groups.items():
            if name != connector:
                for key, value in group.items():
                    if value is not None:
                        found.setdefault(key, value)
        return found


def _resolve(value: Any, secrets: Callable[[str], Any] | None) -> Any:
    token = SECRET_TOKEN.match(value) if isinstance(value, str) else None
    if token is None:
        return value
    return None if secrets is None else secrets(token[1])
