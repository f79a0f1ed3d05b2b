"""NDJSON: one event per line, the stored bytes as they are; what existing clients read."""

from __future__ import annotations

from typing import ClassVar

from machina.events import Entry


class NDJSONEncoder:
    """A heartbeat is a bare line feed; a response without `done` was cut short."""

    content_type: ClassVar[str] = "application/x-ndjson"
    ended_status: ClassVar[int] = 200

    def encode(self, entry: Entry) -> bytes:
        return entry.data + b"\n"

    def heartbeat(self) -> bytes:
        return b"\n"

    def close(self, retry_ms: int | None = None) -> bytes:
        return b""
