"""A server in the test's own event loop that speaks MongoDB's protocol and answers as it is told.

For what the test server of `mongo_server.py` does not do: MongoDB's own errors, and to see what is
asked of a server that means by queries what MongoDB does.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import bson

Command = dict[str, Any]
_HEADER: Final = struct.Struct("<iiii")
_OP_MSG: Final = 2013
_OP_QUERY: Final = 2004
_OP_REPLY: Final = 1


class MongoReplies:
    """Keeps every command about data in `commands` and answers it with `answer`.

    An answer of None closes the connection instead. Without an answer of the test's own there is
    nothing in any collection, and everything succeeds.
    """

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.greetings = 0
        """How often its time was asked for."""
        self.ahead = timedelta(0)
        """How far its clock is ahead."""
        self.delay = 0.0
        """Seconds until a command is answered."""
        self.most_at_once = 0
        """The most commands that waited for an answer together."""
        self._waiting = 0
        self.answer: Callable[[Command], Mapping[str, Any] | None] = lambda _: {}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The address for clients."""
        assert self._server is not None
        return f"mongodb://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/machina"

    def sent(self, name: str) -> list[Command]:
        """The commands of one name."""
        return [command for command in self.commands if name in command]

    async def start(self) -> None:
        """Listens on a free port of the loopback interface."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        """Closes everything."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.close()
        while self._open:  # noqa: ASYNC110  # each connection's task ends with its own
            await asyncio.sleep(0)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        header = await reader.readexactly(_HEADER.size)
        length, request, _, opcode = _HEADER.unpack(header)
        body = await reader.readexactly(length - _HEADER.size)
        if opcode == _OP_QUERY:
            reply = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self._greeting())
            writer.write(_HEADER.pack(16 + len(reply), 0, request, _OP_REPLY) + reply)
            return True
        answer = self._reply(_parse(body))
        if answer is None:
            return False
        self._waiting += 1
        self.most_at_once = max(self.most_at_once, self._waiting)
        await asyncio.sleep(self.delay)
        self._waiting -= 1
        reply = b"\0\0\0\0\0" + bson.encode({"ok": 1.0} | dict(answer))
        writer.write(_HEADER.pack(16 + len(reply), 0, request, _OP_MSG) + reply)
        return True

    def _reply(self, command: Command) -> Mapping[str, Any] | None:
        name = next(iter(command))
        if name in ("hello", "ismaster"):
            self.greetings += command["$db"] == "machina"
            return self._greeting()
        if name in ("ping", "endSessions"):
            return {}
        self.commands.append(command)
        answer = self.answer(command)
        if answer is None or answer:
            return answer
        return _nothing(command)

    def _greeting(self) -> Command:
        return {
            "ok": 1.0,
            "isWritablePrimary": True,
            "helloOk": True,
            "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "localTime": datetime.now(UTC) + self.ahead,
            "minWireVersion": 0,
            "maxWireVersion": 21,
        }


def cursor(*documents: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a `find` or `aggregate`: one batch, and no more."""
    return {"cursor": {"id": 0, "ns": "machina.x", "firstBatch": [*documents]}}


def failure(code: int, **more: Any) -> dict[str, Any]:
    """The answer of a server that failed."""
    return {"ok": 0.0, "code": code, "errmsg": f"failed with {code}", **more}


def _nothing(command: Command) -> dict[str, Any]:
    """What a server without data answers; the probe it answers as MongoDB does."""
    name = next(iter(command))
    if name == "find" and command["find"] == "machina_probes":
        return cursor({"_id": "2"}, {"_id": "1"})
    if name in ("find", "aggregate"):
        return cursor()
    return {"value": None} if name == "findAndModify" else {"n": 1, "nModified": 1}


def _parse(body: bytes) -> Command:
    """The command of a message, with the documents that came beside it in place."""
    command: Command = {}
    at = 4
    while at < len(body):
        kind, at = body[at], at + 1
        size = struct.unpack_from("<i", body, at)[0]
        if kind == 0:
            command |= bson.decode(body[at : at + size])
        else:
            end = body.index(b"\0", at + 4)
            documents = bson.decode_all(body[end + 1 : at + size])
            command[body[at + 4 : end].decode()] = documents
        at += size
    return command
