"""The edge of admission: a plain ASGI middleware that takes back, after the last byte, all that a
request was given; and the handle through which a route asks for it.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final, TypeVar, cast

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from machina.admission.gate import Gate, Permit
from machina.breaker import SharedBreaker, Ticket
from machina.errors import TooManyViewers

log = structlog.get_logger(__name__)

_SCOPE_KEY: Final = "machina.admission"
_VIEWER_RETRY_SECONDS: Final = 5.0

T = TypeVar("T")


class Admission:
    """What one API process admits by: the gate and breaker of starts, the bound of all viewers."""

    def __init__(self, gate: Gate, breaker: SharedBreaker, *, max_viewers: int) -> None:
        self.gate = gate
        self.breaker = breaker
        self.max_viewers = max_viewers
        self.viewers = 0
        self.closing: set[asyncio.Task[None]] = set()
        """Releases that go on after their request was cancelled; kept so that none is lost."""

    def handle(self) -> Handle:
        """A new, empty handle for one request."""
        return Handle(self)


class Handle:
    """What one request holds. Everything is given back by `close`, whatever happened."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._permit: Permit | None = None
        self._ticket: Ticket | None = None
        self._is_viewer = False
        self._stack: AsyncExitStack | None = None

    async def start(self) -> None:
        """Asks for everything that a new stream needs; joins and resumes need only `view`.

        Raises:
            BreakerOpen: 503, with the time to wait.
            Overloaded: 429, with the time to wait.
            TooManyViewers: 503.
        """
        self._ticket = await self.admission.breaker.admit()
        self._permit = await self.admission.gate.acquire()
        self.view()

    def view(self) -> None:
        """Asks for a place among the viewers of this process.

        Raises:
            TooManyViewers: 503, with the time to wait.
        """
        admission = self.admission
        if self._is_viewer:
            return
        if admission.viewers >= admission.max_viewers:
            raise TooManyViewers(
                f"This process already relays {admission.max_viewers} streams; try again later.",
                retry_after=_VIEWER_RETRY_SECONDS,
            )
        admission.viewers += 1
        self._is_viewer = True

    async def hold(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enters a context that stays open until the last byte."""
        if self._stack is None:
            self._stack = AsyncExitStack()
        return await self._stack.enter_async_context(context)

    def succeeded(self) -> None:
        """The started run is recorded, queued and has said its first word."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self.admission.breaker.success(ticket)

    def failed(self) -> None:
        """The run could not be started, for a reason of the server."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self.admission.breaker.failure(ticket)

    def release(self) -> None:
        """Gives back permit, viewer's place and ticket. Synchronous; harmless to repeat."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.release()
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self.admission.breaker.release(ticket)
        if self._is_viewer:
            self._is_viewer = False
            self.admission.viewers -= 1

    async def close(self) -> None:
        """Gives everything back and closes what `hold` entered."""
        self.release()
        stack, self._stack = self._stack, None
        if stack is None:
            return
        # A request that is cancelled cannot await anything to its end: the task can.
        task = asyncio.create_task(stack.aclose())
        self.admission.closing.add(task)
        task.add_done_callback(self._closed)
        await asyncio.wait((task,))

    def _closed(self, task: asyncio.Task[None]) -> None:
        self.admission.closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("admission.close_failed", exc_info=error)


def handle_of(scope: Scope) -> Handle:
    """The handle that the middleware put into the scope of a request."""
    return cast("Handle", scope[_SCOPE_KEY])


class AdmissionMiddleware:
    """Gives every request a handle and takes it back after the last byte, however it ended."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self.admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; disconnect, error and cancellation all pass the same `finally`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        handle = self.admission.handle()
        scope[_SCOPE_KEY] = handle
        try:
            await self.app(scope, receive, send)
        finally:
            await handle.close()
