"""A cache of compiled texts, bounded by the length of all its texts together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Made = TypeVar("Made")


class SourceCache(Generic[Made]):
    """Keeps what was made of the texts used last. Safe to use from several threads.

    What a text compiles to takes up to about a hundred bytes for each of its characters; so
    characters are what is counted, not texts. A text too long for the cache is made each time.
    """

    def __init__(self, make: Callable[[str], Made], *, max_characters: int) -> None:
        self._make = make
        self._room = max_characters
        self._longest = max_characters // 32
        self._made: OrderedDict[str, Made] = OrderedDict()
        self._lock = Lock()

    def __call__(self, text: str) -> Made:
        """What was made of a text, now or before."""
        with self._lock:
            made = self._made.get(text)
            if made is not None:
                self._made.move_to_end(text)
                return made
        made = self._make(text)
        if len(text) <= self._longest:
            self._keep(text, made)
        return made

    def __len__(self) -> int:
        return len(self._made)

    def _keep(self, text: str, made: Made) -> None:
        with self._lock:
            if text in self._made:  # another thread was faster
                return
            self._made[text] = made
            self._room -= _charge(text)
            while self._room < 0:
                oldest, _ = self._made.popitem(last=False)
                self._room += _charge(oldest)


def _charge(text: str) -> int:
    return len(text) + 16  # an empty text takes room as well
