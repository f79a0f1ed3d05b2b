"""Which format a client gets: what it names in the query, else what its `Accept` header prefers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from machina.errors import Invalid
from machina.wire.base import Encoder
from machina.wire.ndjson import NDJSONEncoder
from machina.wire.sse import SSEEncoder

FORMATS: Final[Mapping[str, type[Encoder]]] = {"ndjson": NDJSONEncoder, "sse": SSEEncoder}
"""The table of formats; the first is what a client without a preference gets."""

_MAX_ACCEPT: Final = 2_000


def negotiate(accept: str | None, format: str | None = None) -> Encoder:
    """A fresh encoder for one response.

    `format` (the query parameter) wins. A client that accepts neither format gets the first:
    existing clients send `application/json` and read NDJSON.

    Raises:
        Invalid: `format` names no format.
    """
    if format is not None:
        try:
            return FORMATS[format]()
        except KeyError:
            raise Invalid(
                f"There is no format '{format[:40]}'; use one of: {', '.join(FORMATS)}.",
                field="format",
            ) from None
    ranges = _parse(accept or "")
    best = max(FORMATS.values(), key=lambda encoder: _preference(encoder.content_type, ranges))
    return best()


class _Range(NamedTuple):
    type: str
    subtype: str
    quality: float


def _parse(accept: str) -> list[_Range]:
    """The media ranges of an `Accept` header, in order; what cannot be read is left out."""
    ranges = []
    for part in accept[:_MAX_ACCEPT].lower().split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        type, slash, subtype = media.partition("/")
        quality = _quality(parameters)
        if slash and quality is not None:
            ranges.append(_Range(type, subtype, quality))
    return ranges


def _quality(parameters: list[str]) -> float | None:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
            return quality if 0 <= quality <= 1 else None
    return 1.0


def _preference(content_type: str, ranges: list[_Range]) -> tuple[float, int, int]:
    """How much a client wants a type: by quality; then named before matched; then named first."""
    type, _, subtype = content_type.partition("/")
    matching = [
        ((range.type != "*") + (range.subtype != "*"), -position, range.quality)
        for position, range in enumerate(ranges)
        if range.type in (type, "*") and range.subtype in (subtype, "*")
    ]
    # The most specific range is the one that speaks about this type.
    specific, position, quality = max(matching, default=(0, 0, 0.0))
    return (quality, specific, position) if quality else (0.0, 0, 0)
