"""One stream as a client sees it: what came, and when, with as little work as possible."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import httptools

OK = 200


class Stream(asyncio.Protocol):
    """Sends one request and keeps every piece of the answer's body with its time of arrival.

    Nothing is decoded while a measurement runs: what the pieces say is looked at afterwards.
    """

    def __init__(self, request: bytes) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        """Monotonic nanoseconds of arrival, and what arrived."""
        self.began = 0
        self.status = 0
        self.complete = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._now = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's inherits from neither
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Notes the time once for all that came together."""
        self._now = time.monotonic_ns()
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self.pieces.append((self._now, body))

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.complete = True
        self._end()
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the stream, complete or not."""
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def open_stream(port: int, request: bytes) -> Stream:
    """Starts a stream; `began` is the moment before connecting. Raises `OSError`."""
    began = time.monotonic_ns()
    _, stream = await asyncio.get_running_loop().create_connection(
        lambda: Stream(request), "127.0.0.1", port
    )
    stream.began = began
    return stream
