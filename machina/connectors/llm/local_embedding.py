"""Vectors without a model: texts with words, or parts of words, in common lie near each other.

A stand-in for `dev` and tests. It knows nothing of meaning, but retrieval over it works, and it
gives the same vectors in every process and on every machine.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Final
from zlib import crc32

DIMENSIONS: Final = 768
MAX_TEXT_CHARS: Final = 32_000
"""What follows in a text is left out."""

_WORD: Final = re.compile(r"\w+")
_DIGITS: Final = 6
"""Decimals kept, so that the last bit of another machine's logarithm does not show."""
_SIZES: Final = (3, 4)
"""Lengths of the parts of words."""
_WHOLE, _PAIR, _PART, _FILLER = 1.3, 0.4, 0.2, 0.05
_CHARACTERS: Final = 0.8
_LONGEST_WORD: Final = 40
_ENDINGS: Final = ("ings", "ing", "ies", "ers", "ed", "es", "er", "s", "y", "e")
_SHORTEST_STEM: Final = 3
# Words that nearly every text has: they must not make two texts alike.
# fmt: off
_FILLERS: Final = frozenset(
    (
        "a", "about", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can",
        "could", "did", "do", "does", "for", "from", "had", "has", "have", "he", "her", "his",
        "how", "i", "if", "in", "into", "is", "it", "its", "me", "my", "no", "not", "of", "on",
        "or", "our", "she", "should", "so", "some", "tell", "than", "that", "the", "their",
        "them", "then", "there", "these", "they", "this", "those", "to", "us", "was", "we",
        "were", "what", "when", "where", "which", "who", "why", "will", "with", "would", "you",
        "your",
    )
)
# fmt: on


def embed_text(text: str) -> list[float]:
    """A vector of length 1. Texts without a word share one of their own."""
    sums = [0.0] * DIMENSIONS
    for feature, weight in _features(text[:MAX_TEXT_CHARS]):
        number = crc32(feature.encode("utf-8", "replace"))
        sums[number % DIMENSIONS] += weight if number & 0x8000_0000 else -weight
    length = math.sqrt(math.fsum(value * value for value in sums))
    if length == 0:
        return [1.0] + [0.0] * (DIMENSIONS - 1)
    return [round(value / length, _DIGITS) for value in sums]


def _features(text: str) -> Iterator[tuple[str, float]]:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    for word, count in Counter(words).items():
        often = 1 + math.log(count)
        if word in _FILLERS:
            yield f"w:{word}", _FILLER * often
            continue
        for feature, weight in _features_of_word(word[:_LONGEST_WORD]):
            yield feature, weight * often
    telling = [word for word in words if word not in _FILLERS]
    for (first, second), count in Counter(pairwise(telling)).items():
        yield f"p:{first} {second}", _PAIR * (1 + math.log(count))


def _features_of_word(word: str) -> Iterator[tuple[str, float]]:
    yield f"w:{_stem(word)}", _WHOLE
    if not word.isascii():
        # Scripts without blanks: what counts as a word here is a sentence there.
        for start in range(len(word) - 1):
            yield f"c:{word[start : start + 2]}", _CHARACTERS
    padded = f"<{word}>"
    for size in _SIZES:
        for start in range(len(padded) - size + 1):
            yield f"c:{padded[start : start + size]}", _PART


def _stem(word: str) -> str:
    """The word without an English ending: `refunds`, `refunded` and `refund` are one."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM:
            return word.removesuffix(ending)
    return word
