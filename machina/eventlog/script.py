"""Calls `append.lua`: arguments and answers of one commit, loaded once per server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from machina.eventlog.answers import Answer
from machina.eventlog.asking import ask
from machina.eventlog.clients import commands_of
from machina.eventlog.keys import LogKeys
from machina.ids import RunId


class Batch(NamedTuple):
    """What one attempt wants appended: dense entries from `first`, finished lines."""

    run_id: RunId
    attempt: int
    first: int
    lines: Sequence[bytes]
    terminal: bool
    """The last line is the terminal entry."""
    repair: bool
    """The attempt may write after an old terminal entry."""
    live_ms: int
    retention_ms: int


class Verdict(NamedTuple):
    """The answer for one batch; `detail` is the seq wanted (GAP) or the newer attempt (FENCED)."""

    answer: Answer
    detail: int | None = None


def load_source() -> bytes:
    """The text of the script. Reads a file: call it off the event loop."""
    return files("machina.eventlog").joinpath("append.lua").read_bytes()


def make_call(keys: LogKeys, batches: Sequence[Batch]) -> tuple[list[str], list[str | bytes]]:
    """KEYS and ARGV of one call, as the script's header describes them."""
    names: list[str] = []
    arguments: list[str | bytes] = [keys.bells]
    for batch in batches:
        names += (keys.events(batch.run_id), keys.fence(batch.run_id))
        arguments += (
            batch.run_id,
            f"{batch.attempt} {batch.first} {len(batch.lines)} {batch.terminal:d} {batch.repair:d}"
            f" {batch.live_ms} {batch.retention_ms}",
        )
        arguments += batch.lines
    return names, arguments


def parse_answers(raw: Sequence[bytes]) -> list[Verdict]:
    """The script's answers, in the order of the batches."""
    return [_PLAIN.get(one) or _parse_answer(one) for one in raw]


def _parse_answer(raw: bytes) -> Verdict:
    word, _, detail = raw.decode("ascii").partition(" ")
    return Verdict(Answer(word), int(detail) if detail else None)


_PLAIN: Final = {answer.encode("ascii"): Verdict(answer) for answer in Answer}
"""The answers without a detail, read: nearly all of them."""


class AppendScript:
    """The script on one server; loads itself there whenever the server does not know it."""

    def __init__(self, client: Redis, keys: LogKeys) -> None:
        self._client = client
        self._commands = commands_of(client)
        self._keys = keys
        self._source: bytes | None = None
        self._sha = ""

    async def commit(self, batches: Sequence[Batch]) -> list[Verdict]:
        """Appends all batches in one call; safe to send again with the same ids.

        Raises:
            redis.exceptions.RedisError: refused as a whole, or the outcome is unknown.
        """
        if self._source is None:
            source = await asyncio.to_thread(load_source)
            self._sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
            self._source = source
        names, arguments = make_call(self._keys, batches)
        try:
            raw = await self._evalsha(names, arguments)
        except NoScriptError:  # first use, or the server restarted or failed over
            await ask(self._client.script_load(self._source))
            raw = await self._evalsha(names, arguments)
        return parse_answers(raw)

    async def _evalsha(self, names: list[str], arguments: list[str | bytes]) -> list[bytes]:
        answers: list[bytes] = await self._commands.execute(
            "EVALSHA", self._sha, len(names), *names, *arguments
        )
        return answers
