"""A check that several sections share."""

from __future__ import annotations


def require_scheme(value: str | None, schemes: tuple[str, ...], example: str) -> str | None:
    """The value itself, when it is unset or a URL of one of these schemes.

    Raises:
        ValueError: it is something else; the message shows an example.
    """
    if value is not None and value.partition("://")[0].lower() not in schemes:
        raise ValueError(f"must begin with {' or '.join(s + '://' for s in schemes)}, as {example}")
    return value
