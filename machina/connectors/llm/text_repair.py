"""Makes any text of a provider into text that everybody downstream can encode."""

from __future__ import annotations

from typing import Final

REPLACEMENT: Final = "\ufffd"


class TextRepair:
    """Replaces NUL and lone surrogates; joins a surrogate pair torn over two deltas."""

    def __init__(self) -> None:
        self._high = ""

    def clean(self, text: str) -> str:
        """The text as it may go on; what must wait for its other half is held back."""
        if self._high:
            text, self._high = self._high + text, ""
        if not text.isascii():
            text = self._without_surrogates(text)
        return text.replace("\x00", REPLACEMENT) if "\x00" in text else text

    def rest(self) -> str:
        """What is left at the end of the answer: a half whose other half never came."""
        rest, self._high = self._high, ""
        return REPLACEMENT if rest else ""

    def _without_surrogates(self, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._high = text[:-1], text[-1]
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text
