"""Vectors beside documents: packed as 32-bit floats, and compared by their cosine."""

from __future__ import annotations

import array
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from machina.errors import Invalid

HEADER: Final = b"\x27\x00"
"""How MongoDB tells a vector of 32-bit floats: the payload of its binary subtype 9,
https://github.com/mongodb/specifications/blob/master/source/bson-binary-vector/bson-binary-vector.md"""
MAX_DIMENSION: Final = 8_192


class Vector(bytes):
    """A packed vector; a backend that has a type of its own for vectors keeps it as such."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Embedding:
    """What a text means to a model. Only embeddings of one space can be compared."""

    space: str
    vector: Vector

    @classmethod
    def of(cls, space: str, numbers: Sequence[float]) -> Embedding:
        """The embedding of some numbers.

        Raises:
            Invalid: none, too many, or one that is not finite as a 32-bit float.
        """
        packed = pack(numbers)
        if not 0 < len(numbers) <= MAX_DIMENSION or not all(map(math.isfinite, unpack(packed))):
            raise Invalid(
                f"An embedding has 1 to {MAX_DIMENSION} finite numbers.", field="embedding"
            )
        return cls(space, packed)


def pack(numbers: Sequence[float]) -> Vector:
    """The numbers as 32-bit floats, least significant byte first; what is too large is infinite."""
    packed = array.array("f", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return Vector(HEADER + packed.tobytes())


def unpack(vector: bytes) -> list[float]:
    """The numbers of a packed vector."""
    numbers = array.array("f", vector[len(HEADER) :])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def similarities(vectors: Sequence[bytes], to: bytes) -> list[float]:
    """The cosine of each vector with another one; all are of one dimension. Takes CPU time.

    A vector of zeros is like nothing.
    """
    # A tenth of a second that only a process which compares vectors spends.
    import numpy as np  # noqa: PLC0415  # see above

    if not vectors:
        return []
    start = len(HEADER)
    asked = np.frombuffer(to, dtype="<f4", offset=start).astype(np.float64)
    rows = np.frombuffer(b"".join(v[start:] for v in vectors), dtype="<f4")
    rows = rows.reshape(len(vectors), len(asked)).astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(asked)
    scores = np.divide(rows @ asked, lengths, out=np.zeros(len(vectors)), where=lengths > 0)
    found: list[float] = np.clip(scores, -1.0, 1.0).tolist()
    return found
