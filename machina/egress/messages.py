"""What goes through the guarded client: a request, its answer, and the limits of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_REDIRECTS: Final = 3


@dataclass(frozen=True, slots=True)
class EgressRequest:
    """One request. Its headers are for its own origin, and for no other one."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    total_seconds: float | None = None
    """None: the limit of the setting, as below."""
    max_bytes: int | None = None
    """Of the answer, after decompression."""
    redirects: int = MAX_REDIRECTS
    """How many are followed, each checked like the first URL; 0 shows them to the caller."""


@dataclass(frozen=True, slots=True)
class EgressResponse:
    """What came back: `headers` by lower-case name; `url` is where the redirects ended."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """Seconds of a call, seconds of silence, and bytes of an answer after decompression."""

    total_seconds: float = 120
    idle_seconds: float = 60
    max_bytes: int = 10 * 1024 * 1024
