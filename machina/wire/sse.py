"""Server-sent events: `id` is the event id, so a browser resumes by itself with Last-Event-ID."""

from __future__ import annotations

from typing import ClassVar

from machina.events import Entry


class SSEEncoder:
    """Frames of `id`, `event` and `data`; the data is the same line of JSON as in NDJSON.

    Nothing can break out of a frame: the id is made of numbers, the type is one of the vocabulary,
    and the writer encodes an event as one line of ASCII.
    """

    content_type: ClassVar[str] = "text/event-stream"
    ended_status: ClassVar[int] = 204  # or a browser would reconnect for ever

    def encode(self, entry: Entry) -> bytes:
        return b"id: %d-%d\nevent: %s\ndata: %s\n\n" % (
            entry.id.attempt,
            entry.id.seq,
            entry.type.encode("ascii"),
            entry.data,
        )

    def heartbeat(self) -> bytes:
        return b":\n\n"

    def close(self, retry_ms: int | None = None) -> bytes:
        return b"" if retry_ms is None else b"retry: %d\n\n" % retry_ms
