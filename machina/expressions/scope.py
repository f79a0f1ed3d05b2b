"""What an expression can see: the object behind `$`, the state behind `context`, secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast


class _Missing:
    """Tells a value that is not there from one that is null."""


MISSING: Final = _Missing()


class Subject(Protocol):
    """An object behind `$` that finds its own keys, such as the result of a connector."""

    @property
    def value(self) -> Any:
        """What a bare `$` gives."""

    def get(self, key: Any, default: Any = None) -> Any:
        """What `$.get(key, default)` gives; `default` when there is no such key."""


@dataclass(slots=True)
class Scope:
    """What one evaluation sees. Cheap to make; it is read and never changed.

    `$.get(key)` looks into the subject, then into each of `fallbacks`. `context` is the state,
    also where `$` is a result. `secrets` resolves the name of a `$…_CONTEXT_VARIABLE_…` token.
    """

    subject: Any
    context: Mapping[str, Any]
    fallbacks: Sequence[Mapping[str, Any]] = ()
    secrets: Callable[[str], Any] | None = None

    def get(self, key: Any, default: Any = None) -> Any:
        """`$.get(key, default)`: tolerant of a subject that is null or no mapping."""
        subject = self.subject
        if isinstance(subject, Mapping):
            found = lookup(subject, key, MISSING)
        elif is_subject(subject):
            found = subject.get(key, MISSING)
        else:
            found = MISSING
        if found is not MISSING:
            return found
        for fallback in self.fallbacks:
            found = lookup(fallback, key, MISSING)
            if found is not MISSING:
                return found
        return default

    def state(self, key: Any, default: Any = None) -> Any:
        """`context.get(key, default)`, `$.context(key, default)` and `$.(key)`."""
        return lookup(self.context, key, default)

    def value(self) -> Any:
        """A bare `$`: the subject as plain data."""
        subject = self.subject
        if isinstance(subject, Mapping):
            return _as_dict(subject)
        return subject.value if is_subject(subject) else subject

    def whole_state(self) -> dict[str, Any]:
        """A bare `context`."""
        return _as_dict(self.context)

    def secret(self, name: str) -> Any:
        """The value of a secret token, null when it is unknown."""
        return self.secrets(name) if self.secrets else None


def lookup(mapping: Mapping[Any, Any], key: Any, default: Any = None) -> Any:
    """Finds a key as it is written; failing that, takes its dots for a path."""
    found = mapping.get(key, MISSING)
    if found is not MISSING:
        return found
    if type(key) is not str or "." not in key:
        return default
    current: Any = mapping
    for part in key.split("."):
        if not isinstance(current, Mapping) or part not in current:
            return default
        current = current[part]
    return current


def is_subject(value: Any) -> bool:
    """Whether a value finds its own keys, without being a mapping."""
    return hasattr(value, "get") and hasattr(value, "value")


def _as_dict(mapping: Mapping[str, Any]) -> dict[str, Any]:
    if type(mapping) is dict:
        return cast(dict[str, Any], mapping)
    return dict(mapping)
