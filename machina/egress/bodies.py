"""Takes the body of an answer within limits, whatever it says about itself."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

from machina.errors import EgressFailed

MAX_RATIO: Final = 100
"""How much larger than its compressed form a body may be, once it is larger than `RATIO_FROM`."""
RATIO_FROM: Final = 256 * 1024
ENCODINGS: Final = "gzip, deflate"
"""What we can undo, for `Accept-Encoding`."""
_PIECE: Final = 64 * 1024
_BITS: Final = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}


async def read_body(
    chunks: AsyncIterator[bytes], encoding: str, max_bytes: int, host: str
) -> bytes:
    """The decompressed body of `host`'s answer; `encoding` is its `Content-Encoding`.

    Raises:
        EgressFailed: `egress_too_large`, or `egress_broken` when it cannot be decompressed.
    """
    inflater = _inflater(encoding.strip().lower(), host)
    body = bytearray()
    taken = 0
    async for chunk in chunks:
        taken += len(chunk)
        for piece in (chunk,) if inflater is None else inflater.pieces(chunk):
            body += piece
            if len(body) > max_bytes:
                raise too_large(host, max_bytes)
            if len(body) > RATIO_FROM and len(body) > taken * MAX_RATIO:
                raise EgressFailed(
                    f"{host} sent an answer that grows more than {MAX_RATIO}-fold when it is "
                    "decompressed; it was dropped.",
                    code="egress_too_large",
                )
    if inflater is not None and taken:
        inflater.finish()
    return bytes(body)


def too_large(host: str, max_bytes: int) -> EgressFailed:
    """The failure for an answer above the limit."""
    return EgressFailed(
        f"{host} sent more than {max_bytes} bytes; ask for less, for example page by page.",
        code="egress_too_large",
    )


def _inflater(encoding: str, host: str) -> _Inflater | None:
    if encoding in ("", "identity"):
        return None
    bits = _BITS.get(encoding)
    if bits is None:
        raise EgressFailed(
            f"{host} answers in an encoding that it was not asked for.", code="egress_broken"
        )
    return _Inflater(bits, host)


class _Inflater:
    """Decompresses piece by piece, so that a bomb is noticed after its first pieces."""

    def __init__(self, bits: int, host: str) -> None:
        self._bits = bits
        self._host = host
        self._stream = zlib.decompressobj(bits)
        self._is_fresh = True  # nothing of the whole body was understood yet
        self._had_member = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What a chunk decompresses to."""
        while True:
            if self._stream.eof:
                if not data:
                    return
                # gzip allows several members, one after the other
                self._stream, self._had_member = zlib.decompressobj(self._bits), True
            try:
                piece = self._stream.decompress(data, _PIECE)
            except zlib.error:
                if self._had_member:
                    return  # padding behind the last member
                self._retry_raw()
                continue
            self._is_fresh = False
            yield piece
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if not data and len(piece) < _PIECE:
                return

    def finish(self) -> None:
        """Raises `egress_broken` when the stream ended too soon."""
        if not self._stream.eof and not self._had_member:
            raise self._broken()

    def _retry_raw(self) -> None:
        """Some servers say "deflate" and leave its header out."""
        if self._bits != zlib.MAX_WBITS or not self._is_fresh:
            raise self._broken() from None
        self._bits = -zlib.MAX_WBITS
        self._stream = zlib.decompressobj(self._bits)

    def _broken(self) -> EgressFailed:
        return EgressFailed(
            f"{self._host} sent an answer that cannot be decompressed.", code="egress_broken"
        )
