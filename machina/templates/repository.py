"""Addresses of git repositories from outside: which may be cloned, and with what credential."""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from machina.egress.policy import EgressPolicy
from machina.egress.urls import host_of, port_of, read_url
from machina.errors import EgressFailed, Invalid

_MAX_URL: Final = 2_000
_WEB: Final = re.compile(r"(?P<scheme>https?)://(?:(?P<user>[^/?#@\\]*)@)?(?P<rest>[^?#@\\]+)")
_FILE: Final = re.compile(r"file:///[^?#\\]+")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)(://|::)", re.I)
_BRANCH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@+-]{0,199}")
_TOKEN: Final = re.compile(r"[!-~]{1,4096}")
_TOKEN_USER: Final = "x-access-token"  # noqa: S105  # a user's name, and public
"""What GitHub calls the user of a token; GitLab and others take any name."""


class GitRefused(Invalid):
    """A repository may not be cloned: its address, branch or credential is not allowed."""

    code, title = "git_refused", "Repository refused"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository that may be cloned. Nothing but `authorization` is secret."""

    url: str
    scheme: str
    host: str = ""
    port: int = 0
    authorization: str | None = field(default=None, repr=False)
    """Value of the Authorization header."""
    secrets: Sequence[str] = field(default=(), repr=False)
    """Every form in which the credential could turn up in what git says."""


def read_repository(url: str, *, token: str | None, allowed: Sequence[str]) -> Repository:
    """Reads the URL of a repository. A credential in it is taken out and treated as a token.

    Args:
        token: Sent as the password, over https only.
        allowed: Protocols that are allowed beside https.

    Raises:
        GitRefused: the protocol is not allowed, or the URL or the token is not usable.
    """
    text = url.strip()
    if not text.isprintable() or " " in text or len(text) > _MAX_URL:
        raise GitRefused("The repository's URL holds characters that no URL has, or is too long.")
    if "file" in allowed and _FILE.fullmatch(text):
        return Repository(text, "file")
    web = _WEB.fullmatch(text)
    if web is None or web["scheme"] not in ("https", *allowed):
        raise GitRefused(_why(text))
    try:
        address = read_url(f"{web['scheme']}://{web['rest']}")
    except EgressFailed as refused:
        raise GitRefused(f"The repository's URL is refused: {refused.message}") from None
    credential = _credential(web["user"], token)
    if credential is not None and web["scheme"] != "https":
        raise GitRefused("A token is sent over https only; change the repository's URL.")
    return Repository(
        str(address),
        web["scheme"],
        host_of(address),
        port_of(address),
        None if credential is None else f"Basic {_encoded(credential)}",
        () if credential is None else _forms(credential),
    )


def check_branch(branch: str) -> str:
    """The name of a branch or tag, when it is one; empty means the default branch.

    Raises:
        GitRefused: it is none.
    """
    if branch and (not _BRANCH.fullmatch(branch) or ".." in branch or branch.endswith("/")):
        raise GitRefused(f"{branch!r:.100} is no name of a branch.")
    return branch


def pin(repository: Repository, policy: EgressPolicy) -> str | None:
    """Looks the host up once and checks every address; blocking.

    Returns:
        `host:port:addresses` as curl takes it, so that what was checked is what is connected to;
        None where no name is looked up.

    Raises:
        GitRefused: the host may not be called, or has no address.
    """
    if repository.scheme == "file":
        return None
    host, port = repository.host, repository.port
    try:
        policy.check_host(host, port)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return None  # checked, and nothing to look up
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(place[4][0]).partition("%")[0]) for place in found]
        for address in addresses:
            policy.check_address(address, host, port)
    except EgressFailed as refused:
        raise GitRefused(f"The repository is refused: {refused.message}") from None
    except OSError:
        raise GitRefused(f"The repository's host {host} has no address.") from None
    shown = dict.fromkeys(f"[{a}]" if a.version == 6 else str(a) for a in addresses)
    return f"{host}:{port}:{','.join(shown)}"


def _why(text: str) -> str:
    scheme = _SCHEME.match(text)
    if scheme is None:
        return "The repository must be given as an https:// URL."
    if scheme[1].lower() in ("http", "https", "file") and scheme[2] == "://":
        return (
            f"The repository's URL is not usable, or {scheme[1].lower()} is not allowed; "
            "give an https:// URL without '?', '#' and '\\' (MACHINA_GIT_ALLOW allows more)."
        )
    return f"Repositories are cloned by https only, not by {scheme[1]:.20}{scheme[2]}."


def _credential(user: str | None, token: str | None) -> str | None:
    if token:
        if not _TOKEN.fullmatch(token):
            raise GitRefused("The token holds characters that no token has.")
        return f"{_TOKEN_USER}:{token}"
    if not user:
        return None
    name, colon, password = user.partition(":")
    return f"{name}:{password}" if colon else f"{_TOKEN_USER}:{name}"


def _encoded(credential: str) -> str:
    return base64.b64encode(credential.encode()).decode("ascii")


def _forms(credential: str) -> tuple[str, ...]:
    password = credential.partition(":")[2]
    return tuple(form for form in (_encoded(credential), credential, password) if form)
