"""What an OpenAPI document says about one API, as far as a call needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """One declared parameter; `place` is path, query, header or cookie."""

    name: str
    place: str
    default: Any = None
    explode: bool = True
    style: str = "form"


@dataclass(frozen=True, slots=True)
class Scheme:
    """One security scheme. `id` is its name in the document.

    `kind` is `key` (header, query or cookie `name`), `params` (a key that tasks may pass as an
    input), `bearer`, `basic` or `other` (the header Authorization as it is given).
    """

    id: str
    kind: str
    name: str = ""
    place: str = "header"


@dataclass(frozen=True, slots=True)
class Server:
    """A base URL, perhaps relative, with the variables in it: default and allowed values."""

    url: str
    variables: Mapping[str, tuple[Any, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: everything of it that a call reads, references resolved."""

    method: str
    path: str
    """The template, as the document has it."""
    parameters: tuple[Parameter, ...]
    content_types: tuple[str, ...]
    """Of the request body; empty when none is declared."""
    server: Server | None
    security: tuple[tuple[str, ...], ...]
    """Alternatives, each the ids of schemes that go together; empty: not declared."""

    def declares(self, name: str, place: str) -> bool:
        """Whether there is a parameter of this name there."""
        return any(p.name == name and p.place == place for p in self.parameters)
