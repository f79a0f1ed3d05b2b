"""The port of every wire format: pure functions of entries, one instance per response."""

from __future__ import annotations

from typing import ClassVar, Protocol

from machina.events import Entry


class Encoder(Protocol):
    """Turns entries into bytes. Knows no clock, no randomness and no connection."""

    content_type: ClassVar[str]
    """Media type of the response."""
    ended_status: ClassVar[int]
    """Status of the answer to a client that has everything up to `done` already."""

    def encode(self, entry: Entry) -> bytes:
        """One entry, complete: a client that has all these bytes has the whole event."""

    def heartbeat(self) -> bytes:
        """Bytes that mean nothing, sent so that the connection is seen to live."""

    def close(self, retry_ms: int | None = None) -> bytes:
        """The last bytes of a response.

        `retry_ms` is given when the server ends the response before `done`: the milliseconds after
        which the client should come back, for formats that can say so.
        """
