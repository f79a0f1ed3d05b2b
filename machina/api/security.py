"""Who may come in: a key for every path but the public ones, and scopes for what is not for all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Final

from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from machina.auth import Principal, identify
from machina.auth import Scope as KeyScope
from machina.errors import Forbidden

PUBLIC_PATHS: Final = frozenset(
    (
        "/system/client-health-check",
        "/system/streaming-health",
        "/system/liveness",
        "/system/readiness",
        "/docs",
        "/openapi.json",
    )
)
"""Everything else needs a key, also paths that do not exist: what is new is closed by default."""

OWN_SECRET_PATHS: Final = frozenset(("/system/templates-pushed",))
"""Called by machines that have no key: each checks a secret of its own."""

_KEY_HEADERS: Final = (b"x-api-token", b"x-project-token", b"x-session-token")
_WITHOUT_KEY: Final = PUBLIC_PATHS | OWN_SECRET_PATHS
_MAX_KEYS: Final = 8
"""More keys than any client sends; the rest is not looked at."""


class Authentication:
    """Refuses every request without a valid key; puts the caller into the scope of the others."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request. Raises `Unauthenticated`, `AmbiguousKeys` or `StoreDown`."""
        if scope["type"] == "http" and scope["path"] not in _WITHOUT_KEY:
            offered = list(dict.fromkeys(_keys_of(scope)))[:_MAX_KEYS]
            keyring = scope["state"]["resources"].keyring
            scope["machina.principal"] = await identify(keyring, offered)
        await self.app(scope, receive, send)


def _keys_of(scope: Scope) -> Iterator[str]:
    """Every key the request carries. Bytes that are no ASCII become a text that is no key."""
    for name, value in scope["headers"]:
        if name in _KEY_HEADERS:
            yield value.decode("ascii", "replace").strip()
        elif name == b"authorization":
            method, _, key = value.decode("ascii", "replace").strip().partition(" ")
            if method.lower() == "bearer":
                yield key.strip()


async def caller(request: Request) -> Principal:
    """The authenticated caller of this request."""
    principal: Principal = request.scope["machina.principal"]
    return principal


Caller = Annotated[Principal, Depends(caller)]


def require(scope: KeyScope) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency that lets only keys of this scope pass; an administrator's key passes always."""

    async def check(principal: Caller) -> Principal:
        if principal.scope is not scope and not principal.is_admin:
            raise Forbidden(f"This needs a key with scope '{scope}'; yours is a client's.")
        return principal

    return check
