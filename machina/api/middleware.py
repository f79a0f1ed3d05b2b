"""What every request passes on its way in and out: plain ASGI, one class per concern.

Their order is in `app.py`. None of them reads or buffers a response, so that a stream passes as it
is written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machina.api.problems import problem_of
from machina.errors import TooLarge
from machina.observability.metrics import METHODS

log = structlog.get_logger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_QUIET: Final = (
    "/system/liveness",
    "/system/readiness",
    "/system/client-health-check",
    "/metrics",
)
"""Asked every few seconds by machines: not worth a line each."""


class RequestContext:
    """Gives a request its id, in the answer and in every log line; logs and counts how it ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        scope["machina.request_id"] = request_id
        scope["machina.began"] = started = time.monotonic()
        answered, status = started, 0

        async def send_with_id(message: Message) -> None:
            nonlocal answered, status
            if message["type"] == "http.response.start":
                answered, status = time.monotonic(), message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        structlog.contextvars.clear_contextvars()  # a connection serves many requests
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            level = "debug" if scope["path"] in _QUIET and status < 400 else "info"
            getattr(log, level)(
                "request.served",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(time.monotonic() - started, 4),
            )
            _count(scope, status, answered - started)


def _count(scope: Scope, status: int, seconds: float) -> None:
    """Under the template of its route, because paths are the callers' to invent."""
    metrics = scope["state"]["resources"].metrics.process
    method = scope["method"] if scope["method"] in METHODS else "other"
    route = getattr(scope.get("route"), "path", "none")
    metrics.requests.labels(method, route, f"{status // 100}xx" if status else "none").inc()
    if status:
        metrics.answer_seconds.labels(route).observe(seconds)


def _request_id(offered: str | None) -> str:
    """The caller's id when it is one that can safely be echoed and logged; else a new one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return uuid4().hex


class SecurityHeaders:
    """Says that no answer is to be guessed at, framed or stored where the route says nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("X-Frame-Options", "DENY")
                headers.setdefault("Cache-Control", "no-store")
                if "server" in headers:
                    del headers["server"]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class BodyLimit:
    """Counts the bytes of a body as they come, whatever its Content-Length says."""

    def __init__(
        self, app: ASGIApp, limit: int, larger: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """`larger`: the limits of paths that take more than the others; a path that ends in `/`
        stands for forms sent to anything below it.
        """
        self.app = app
        self.limit = limit
        self.larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; reading beyond the limit raises `TooLarge` in who reads."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit_of(scope["path"], Headers(scope=scope).get("content-type"))
        declared = Headers(scope=scope).get("content-length", "")
        # Who declares too much is not read at all.
        counted = int(declared) if declared.isdecimal() and len(declared) < 20 else 0
        counted = counted if counted > limit else 0

        async def receive_counted() -> Message:
            nonlocal counted
            if counted <= limit:
                message = await receive()
                counted += len(message.get("body", b""))
                if counted <= limit:
                    return message
            raise TooLarge(f"The body is larger than {limit} bytes; send less at once.")

        await self.app(scope, receive_counted, send)

    def _limit_of(self, path: str, content_type: str | None) -> int:
        if path in self.larger:
            return self.larger[path]
        above = path.rpartition("/")[0] + "/"
        return self.larger.get(above, self.limit) if is_form(content_type) else self.limit


def is_form(content_type: str | None) -> bool:
    """Whether a body is a form that may hold files."""
    return (content_type or "").partition(";")[0].strip().lower() == "multipart/form-data"


class Errors:
    """Turns whatever was raised into a problem, as long as nothing of an answer was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_noting)
        except ClientDisconnect:
            log.info("request.abandoned", path=scope["path"])  # before its body was complete
        except Exception as exception:
            if started:
                # Half an answer is out. Ended without its last chunk, it is seen to be cut.
                log.exception("request.broken_off", path=scope["path"])
                return
            await problem_of(exception, scope)(scope, receive, send)
