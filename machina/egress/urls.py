"""Reads a URL so strictly that everybody after us must read it the same way."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import httpx

from machina.errors import EgressFailed

PORTS: Final = {"http": 80, "https": 443}
MAX_URL: Final = 16_000
"""Characters; servers take less."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NAME: Final = re.compile(
    r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")


def read_url(text: str) -> httpx.URL:
    """The URL, its fragment dropped, its host in ASCII.

    Raises:
        EgressFailed: `egress_refused`, it is no http or https URL, names a user, or has a host
            that programs read differently.
    """
    if len(text) > MAX_URL:
        raise _refused(f"a URL of more than {MAX_URL} characters")
    if _CONTROL.search(text):
        raise _refused("a URL with a line break or another control character")
    try:
        url = httpx.URL(text.strip())
        host = url.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, ValueError):
        raise _refused("what is no URL") from None
    if url.scheme not in PORTS:
        raise _refused("a URL that does not begin with http:// or https://")
    if url.userinfo or "@" in _authority(text):
        raise _refused("a URL with a user name; credentials belong into context-variables")
    if "\\" in re.split(r"[?#]", text, maxsplit=1)[0]:
        raise _refused("a URL with a backslash")
    if url.port is not None and not 1 <= url.port <= 65_535:
        raise _refused("a port that does not exist")
    _check_host(host)
    return url.copy_with(fragment=None)


def host_of(url: httpx.URL) -> str:
    """The host in ASCII and lower case, without brackets and final dot."""
    return url.raw_host.decode("ascii").lower().strip("[]").rstrip(".")


def port_of(url: httpx.URL) -> int:
    """The port that is meant."""
    return url.port or PORTS[url.scheme]


def origin_of(url: httpx.URL) -> tuple[str, str, int]:
    """What two URLs share when they may share credentials."""
    return url.scheme, host_of(url), port_of(url)


def _check_host(host: str) -> None:
    name = host.removesuffix(".")
    if ":" in name:  # an address in brackets; httpx has read it as one
        if "%" in name:
            raise _refused("an address with a zone")
        return
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise _refused("a host that is no name")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        # 0x7f.1, 2130706433, 127.1, 017700000001: only four plain decimals are an address.
        try:
            ipaddress.IPv4Address(name)
        except ValueError:
            raise _refused("an address in an unusual form; write four decimal numbers") from None
        if host.endswith("."):
            raise _refused("an address with a dot at its end")


def _authority(text: str) -> str:
    """Between the scheme and the path, as the most credulous reader sees it."""
    return re.split(r"[/?#\\]", text.partition("://")[2], maxsplit=1)[0]


def _refused(what: str) -> EgressFailed:
    return EgressFailed(f"The call was given {what}; it was not made.", code="egress_refused")
