"""What several places do with URLs of services: check their scheme, hide their password."""

from __future__ import annotations

import re
from typing import Final

_PASSWORD: Final = re.compile(r"(//[^/@:]*:).*@")


def require_scheme(value: str | None, schemes: tuple[str, ...], example: str) -> str | None:
    """The value itself, when it is unset or a URL of one of these schemes.

    Raises:
        ValueError: it is something else; the message shows an example.
    """
    if value is not None and value.partition("://")[0].lower() not in schemes:
        raise ValueError(f"must begin with {' or '.join(s + '://' for s in schemes)}, as {example}")
    return value


def mask_password(text: str) -> str:
    """The text as it may be shown: the password of a URL in it is not."""
    return _PASSWORD.sub(r"\1***@", text)
