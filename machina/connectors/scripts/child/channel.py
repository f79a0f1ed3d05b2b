"""Frames over a socket: four bytes of length, then JSON."""

from __future__ import annotations

import json
import socket

TYPE_CHECKING = False  # typing is slow to load, and every script waits for it
if TYPE_CHECKING:
    from typing import Any

HEADER_BYTES = 4


def frame(body: bytes) -> bytes:
    """A body of JSON as it goes over the wire."""
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class Channel:
    """The script's end. The worker's end reads without trusting a byte of what comes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def receive(self) -> Any:
        """The next frame; None when the worker has closed its end, or is gone."""
        header = self._read(HEADER_BYTES)
        if header is None:
            return None
        body = self._read(int.from_bytes(header, "big"))
        return None if body is None else json.loads(body)

    def send(self, body: bytes) -> None:
        """Sends a frame. Raises `OSError` when the worker is gone."""
        self._connection.sendall(frame(body))

    def _read(self, size: int) -> bytes | None:
        parts = []
        while size:
            part = self._connection.recv(min(size, 1 << 20))
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
