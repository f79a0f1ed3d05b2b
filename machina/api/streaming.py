"""The streaming response of all formats: a view's entries, encoded, to one client.

Deliberate choices, referred to by number:

1. One task beside the request's own and no timer per write: an idle stream costs about 3 KiB here
   and a write about 2 µs (docs/decisions/0010-one-streaming-response.md).
2. Whatever ends a stream early interrupts the one place where it waits. A server's `send` waits
   before it writes, so an interrupted stream has always ended at an event boundary.
3. Nothing is awaited in a `finally`: a request that is cancelled could not finish it. What a stream
   holds is given back by admission's middleware, what must follow it runs in a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from machina.api.open_streams import Ending, OpenStreams
from machina.errors import MachinaError, Unavailable
from machina.events import Entry
from machina.wire import Encoder

log = structlog.get_logger(__name__)

_UNWIND: Final = "machina.unwind"
MAX_WRITE: Final = 65_536
_FAREWELL_SECONDS: Final = 1.0
_DEGRADED_PAUSE_SECONDS: Final = 1.0


class View(Protocol):
    """What is relayed; see `runs.viewing.View`."""

    async def next(self, timeout: float) -> list[Entry]:
        """The next entries, or none after `timeout` seconds of silence."""


class Unwind:
    """Relays the stream that a route answered with once everything below has returned."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        waiting: list[RunStream] = []
        scope[_UNWIND] = waiting
        await self.app(scope, receive, send)
        if waiting:
            for key in [key for key in scope if key.startswith("fastapi")]:
                del scope[key]  # exit stacks of what has returned
            await waiting.pop().relay(scope, receive, send)


class RunStream(Response):
    """Relays one view until its last event, or until client or server end it early."""

    def __init__(
        self,
        view: View,
        encoder: Encoder,
        streams: OpenStreams,
        *,
        headers: Mapping[str, str],
        on_first: Callable[[], None] | None = None,
        on_gone: Callable[[], Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        """`on_first` is called with the first event; `on_gone` runs when the client left early."""
        self.status_code = 200
        self.media_type = encoder.content_type
        self.background = None
        self.init_headers(headers)
        self.began = 0.0
        self.sending_since: float | None = None
        self._view = view
        self._encoder = encoder
        self._streams = streams
        self._on_first = on_first
        self._on_gone = on_gone
        self._patience: asyncio.Timeout | None = None
        self._ending: Ending | None = None
        self._events = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the response: at once, or where `Unwind` waits for it (4)."""
        waiting: list[RunStream] | None = scope.get(_UNWIND)
        if waiting is None:
            await self.relay(scope, receive, send)
        else:
            waiting.append(self)

    async def relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends everything, to the end."""
        self.began = asyncio.get_running_loop().time()
        watcher = asyncio.create_task(self._watch(receive))
        self._streams.add(self)
        try:
            ending = await self._relay_or_end(send)
        finally:
            watcher.cancel()
            self._streams.discard(self)
        self._streams.metrics.ended.labels(ending).inc()
        log.info(
            "stream.ended",
            ending=str(ending),
            events=self._events,
            seconds=round(asyncio.get_running_loop().time() - self.began, 3),
        )
        await self._follow_up(ending, scope.get("machina.abort"), send)

    def end(self, ending: Ending) -> None:
        """Ends the stream now, wherever it waits (2). The first reason counts."""
        if self._patience is not None and self._ending is None:
            self._ending = ending
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def _relay_or_end(self, send: Send) -> Ending:
        try:
            async with asyncio.timeout(None) as self._patience:
                await self._relay(send)
                return Ending.DONE
        except Exception as error:
            if isinstance(error, TimeoutError) and self._ending is not None:
                return self._ending
            log.exception("stream.broken")
            return Ending.BROKEN
        finally:
            self._patience = None

    async def _relay(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while True:
            entries = await self._next()
            if not entries:
                await self._write(send, self._encoder.heartbeat())
                continue
            if self._on_first is not None:
                self._on_first()
                self._on_first = None
            for chunk in self._chunks(entries):
                await self._write(send, chunk)
            self._events += len(entries)
            if entries[-1].is_terminal:
                await self._write(send, self._encoder.close(), more=False)
                return

    async def _next(self) -> list[Entry]:
        try:
            return await self._view.next(self._streams.limits.heartbeat)
        except Unavailable as error:
            # The client can only wait or go elsewhere and wait there.
            log.warning("stream.degraded", code=error.code)
            await asyncio.sleep(_DEGRADED_PAUSE_SECONDS)
            return []

    def _chunks(self, entries: Sequence[Entry]) -> Iterator[bytes]:
        """What is waiting, in as few writes as possible; a larger event goes alone and whole."""
        waiting: list[bytes] = []
        size = 0
        for entry in entries:
            encoded = self._encoder.encode(entry)
            if size + len(encoded) > MAX_WRITE and waiting:
                yield b"".join(waiting)
                waiting, size = [], 0
            waiting.append(encoded)
            size += len(encoded)
        yield b"".join(waiting)

    async def _write(self, send: Send, body: bytes, *, more: bool = True) -> None:
        self.sending_since = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": body, "more_body": more})
        self.sending_since = None

    async def _watch(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except MachinaError as refused:  # the client sends a body that never ends
            log.warning("stream.refused_body", code=refused.code)
        self.end(Ending.GONE)

    async def _follow_up(
        self, ending: Ending, abort: Callable[[], None] | None, send: Send
    ) -> None:
        if ending is Ending.GONE:
            # A proxy that is shut down with us also drops its connections: that is our drain.
            if self._on_gone is not None and not self._streams.is_draining():
                self._streams.detach(self._on_gone())
        elif ending is not Ending.DONE:
            said = ending is not Ending.SLOW and await self._say_goodbye(send)
            if abort is not None and not said:
                abort()

    async def _say_goodbye(self, send: Send) -> bool:
        """Ends the response properly; False when the client does not even read that."""
        closing = self._encoder.close(self._streams.retry_ms())
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._write(send, closing, more=False)
        except TimeoutError:
            return False
        return True
