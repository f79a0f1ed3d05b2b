"""The toy's runs: an honest log of what a model says, or one with a mistake sown into it."""

from __future__ import annotations

import asyncio
import json
from enum import StrEnum
from typing import Any, Final

from bench.chaos.oracle import Wrong
from bench.chaos.seen import Id


class Bug(StrEnum):
    """A mistake to sow into the toy."""

    # in the log: live and replay agree, and are wrong
    SKIPS_A_NUMBER = "skips a number"
    STARTS_AT_TWO = "starts an attempt at two"
    ZOMBIE_WRITES = "lets an old attempt write"
    NO_RESTART = "does not say that an attempt begins"
    RESTARTS_UNASKED = "restarts without a reason"
    WRONG_WORD = "says another word"
    LOSES_A_PIECE = "leaves out a piece of text"
    NEVER_ENDS = "never ends"
    ENDS_TWICE = "ends twice"
    SPEAKS_ON = "speaks on after the end"
    SWAPS = "swaps two events"
    FAILS = "fails a run that was to succeed"
    # on the way to the client
    SKIPS_ON_RESUME = "loses an event at a resume"
    REPEATS_ON_RESUME = "repeats an event at a resume"
    GARBLES = "garbles a line"
    TEARS = "ends within a line"
    BREAKS_OFF = "breaks off for no reason"
    HANGS = "does not close after the end"
    REWRITES = "replays something else"
    REPEATS_THE_END = "sends the end again to who has it"
    # in answers
    REFUSES_TRUE_ID = "refuses an id that it gave out"
    NO_RETRY_AFTER = "refuses without saying for how long"
    FORGETS_KEY = "starts a second run for a retry"
    LIES_IN_RECORD = "records another end"
    INVENTS_A_RUN = "has a run that nobody asked for"
    KEEPS_PERMIT = "keeps the permit of who left"
    KEEPS_READER = "keeps the reader of who left"


EXPECTED: Final[dict[Bug, Wrong]] = {
    Bug.SKIPS_A_NUMBER: Wrong.GAP,
    Bug.STARTS_AT_TWO: Wrong.GAP,
    Bug.ZOMBIE_WRITES: Wrong.ORDER,
    Bug.NO_RESTART: Wrong.BAD_BEGINNING,
    Bug.RESTARTS_UNASKED: Wrong.SPURIOUS,
    Bug.WRONG_WORD: Wrong.TEXT,
    Bug.LOSES_A_PIECE: Wrong.TEXT,
    Bug.NEVER_ENDS: Wrong.UNENDED,
    Bug.ENDS_TWICE: Wrong.EXTRA_END,
    Bug.SPEAKS_ON: Wrong.AFTER_END,
    Bug.SWAPS: Wrong.ORDER,
    Bug.FAILS: Wrong.OUTCOME,
    Bug.SKIPS_ON_RESUME: Wrong.GAP,
    Bug.REPEATS_ON_RESUME: Wrong.REPEATED,
    Bug.GARBLES: Wrong.BAD_EVENT,
    Bug.TEARS: Wrong.TORN_LINE,
    Bug.BREAKS_OFF: Wrong.BROKEN_OFF,
    Bug.HANGS: Wrong.NOT_CLOSED,
    Bug.REWRITES: Wrong.REPLAY,
    Bug.REPEATS_THE_END: Wrong.AFTER_END,
    Bug.REFUSES_TRUE_ID: Wrong.ANSWER,
    Bug.NO_RETRY_AFTER: Wrong.NO_RETRY_AFTER,
    Bug.FORGETS_KEY: Wrong.RUN_CHANGED,
    Bug.LIES_IN_RECORD: Wrong.STATUS,
    Bug.INVENTS_A_RUN: Wrong.STRAY_RUN,
    Bug.KEEPS_PERMIT: Wrong.LEAKED,
    Bug.KEEPS_READER: Wrong.LEAKED,
}
"""What the oracle must say, among other things perhaps, of a toy with this mistake."""

PLACE: Final = 5
"""The number of the event, in every attempt, at which most mistakes happen."""


class ToyRun:
    """One run: what it says and how it ended."""

    def __init__(self, id: str, tokens: int, delay_seconds: float, bug: Bug | None) -> None:
        self.id = id
        self.log: list[tuple[Id, bytes]] = []
        self.status = ""
        self.cancelled = False
        self._tokens = tokens
        self._delay = delay_seconds
        self._bug = bug
        self._attempt = 1
        self._seq = 0
        self._changed = asyncio.Event()

    async def tell(self, restart_at: int | None) -> None:
        """Says everything, with a second attempt from the beginning after some tokens."""
        if restart_at is not None:
            await self._say_attempt(restart_at)
            self._attempt, self._seq = 2, 0
        await self._say_attempt(self._tokens)
        if self._bug is not Bug.NEVER_ENDS:
            self._end()

    def cancel(self) -> None:
        """Ends the run with what it has said."""
        if not self.status:
            self.cancelled = True

    async def wait_longer_than(self, length: int, seconds: float) -> None:
        """Returns when the log has more entries, or after `seconds`."""
        if len(self.log) <= length:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _say_attempt(self, tokens: int) -> None:
        """The beginning and the pieces."""
        first = "start" if self._attempt == 1 else "restart"
        if self._bug is Bug.STARTS_AT_TWO and self._attempt == 2:
            self._seq += 1
        if self._bug is Bug.NO_RESTART and self._attempt == 2:
            first = "status_update"
        self._append(first, "", {"attempt": self._attempt, "content": ""})
        for number in range(tokens):
            if self.cancelled:
                break
            await asyncio.sleep(self._delay)
            if self._bug is Bug.LOSES_A_PIECE and number == PLACE:
                continue
            self._append("content", self._piece(number), {"partial": True})
            if self._bug is Bug.ZOMBIE_WRITES and self._attempt == 2 and number == PLACE:
                self._append("content", "boo", {"partial": True}, Id(1, 900))

    def _end(self) -> None:
        self.status = "cancelled" if self.cancelled else "executed"
        if self._bug is Bug.FAILS:
            self.status = "failed"
        said = self._seq - 1 if self.cancelled else self._tokens
        text = "".join(self._piece(number) for number in range(said))
        if text:
            self._append("content", text, {"final": True})
        self._append("done", "", {"status": self.status, "content": text})
        if self._bug is Bug.ENDS_TWICE:
            self._append("done", "", {"status": self.status, "content": text})
        if self._bug is Bug.SPEAKS_ON:
            self._append("status_update", "still here", {})

    def _piece(self, number: int) -> str:
        if self._bug is Bug.WRONG_WORD and number == PLACE:
            return " tok-x"
        return f" tok-{number}" if number else "tok-0"

    def _swapped(self, seq: int) -> int:
        if self._bug is Bug.SWAPS and seq in (PLACE, PLACE + 1):
            return 2 * PLACE + 1 - seq
        return seq

    def _append(
        self, type: str, content: str, metadata: dict[str, Any], id: Id | None = None
    ) -> None:
        if id is None:
            self._seq += 2 if self._bug is Bug.SKIPS_A_NUMBER and self._seq == PLACE else 1
            id = Id(self._attempt, self._swapped(self._seq))
        event = {"id": str(id), "type": type, "content": content, "metadata": metadata}
        self.log.append((id, json.dumps(event).encode("ascii")))
        self._changed.set()
        self._changed = asyncio.Event()
