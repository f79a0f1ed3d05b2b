"""Which headers a caller may set, and what no header may hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from machina.errors import EgressFailed

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_MAX_VALUE: Final = 16_000
_OURS: Final = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
        "trailer", "expect", "proxy-authorization", "proxy-connection", "accept-encoding",
    }
)  # fmt: skip
"""Headers that belong to the connection; a caller who sets them could split a request."""
SHAREABLE: Final = frozenset({"accept", "accept-language", "content-type", "user-agent"})
"""Headers that hold no credential and may go to another origin."""


def is_ours(name: str) -> bool:
    """Whether the client sets this header itself."""
    return name.lower() in _OURS


def check_headers(method: str, headers: Mapping[str, str]) -> None:
    """Refuses what could be read as more than one request.

    Raises:
        EgressFailed: `egress_refused`; the message names the header, never its value.
    """
    if not re.fullmatch(r"[A-Z]{1,20}", method):
        raise _refused("its method is no word of capital letters")
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise _refused("the name of a header has characters that are not allowed there")
        if is_ours(name):
            raise _refused(f"the header {name} cannot be set by a caller")
        if len(value) > _MAX_VALUE:
            raise _refused(f"the header {name} is longer than {_MAX_VALUE} characters")
        if not _VALUE.fullmatch(value):
            raise _refused(
                f"the header {name} holds a line break or characters other than plain ASCII"
            )


def _refused(why: str) -> EgressFailed:
    return EgressFailed(f"The call was not made: {why}.", code="egress_refused")
