"""What a script prints: its first bytes are kept, the rest is read and dropped."""

from __future__ import annotations

import asyncio
import os
from typing import Final

_PIECE: Final = 65_536


class Output:
    """Reads a pipe as long as it is open, so that a script that prints much is never held up."""

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        self._descriptor: int | None = descriptor
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._total = 0
        self.ended = asyncio.Event()
        """Set once nobody has the other end any more."""
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def take(self) -> tuple[str, bool]:
        """What was printed since the last time, and whether it is only the beginning of that."""
        self._read()
        text, truncated = self._kept.decode("utf-8", "replace"), self._total > len(self._kept)
        self._kept.clear()
        self._total = 0
        return text, truncated

    def close(self) -> None:
        """Stops reading; whoever still prints is told so by the system."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        self.ended.set()

    def _read(self) -> None:
        if self._descriptor is None:
            return
        try:
            piece = os.read(self._descriptor, _PIECE)
        except BlockingIOError:
            return
        if not piece:
            self.close()
            return
        self._total += len(piece)
        room = self._max_bytes - len(self._kept)
        if room > 0:
            self._kept += piece[:room]
