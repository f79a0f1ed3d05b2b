"""Lines of a byte stream, however it was cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineTooLong(Exception):
    """A line exceeds the cap."""


class LineSplitter:
    """Splits at line feeds only: U+2028 and its like are text. A carriage return before it goes."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max = max_line_bytes
        self._rest = bytearray()
        self._at_start = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that this chunk completes, without their ends.

        Raises:
            LineTooLong: when a line, complete or not, is longer than the cap.
        """
        first, *others = chunk.split(b"\n")
        self._rest += first
        if others:
            others[0:0], self._rest = [bytes(self._rest)], bytearray(others.pop())
            for line in others:
                yield self._checked(line)
        if len(self._rest) > self._max + 1:  # one for the carriage return
            raise LineTooLong

    def rest(self) -> bytes:
        """What came after the last line feed, at the end of the stream."""
        rest, self._rest = bytes(self._rest), bytearray()
        return self._checked(rest)

    def _checked(self, line: bytes) -> bytes:
        if line.endswith(b"\r"):
            line = line[:-1]
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if len(line) > self._max:
            raise LineTooLong
        return line
