"""A small HTTP server whose answers the test writes, byte by byte when it wants to."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that speak plain HTTP only: spares each of them 30 ms of reading certificates."""


@dataclass(frozen=True)
class Seen:
    """A request as it arrived. Header names are in lower case; `target` is as it was sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What goes back. `stream` is sent as it comes and ends with the connection."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Callable[[], AsyncIterator[bytes]] | None = None


def ok(value: Any, **headers: str) -> Answer:
    """A JSON answer."""
    fields = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    return Answer(200, json.dumps(value).encode(), fields)


class Server:
    """Listens on loopback while the block lasts; `answer` decides, `seen` remembers."""

    def __init__(
        self,
        answer: Callable[[Seen], Answer] = lambda seen: ok({"fine": True}),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections = 0
        self._tls = tls
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{host}:{self.port}{path}"

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                while True:
                    seen = await self._read(reader)
                    self.seen.append(seen)
                    if not await self._write(writer, seen, self.answer(seen)):
                        return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {}
        for line in filter(None, head[1:]):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Seen(method, target, headers, body)

    async def _write(self, writer: asyncio.StreamWriter, seen: Seen, answer: Answer) -> bool:
        fields = dict(answer.headers)
        if answer.stream is None:
            fields.setdefault("Content-Length", str(len(answer.body)))
        lines = [f"HTTP/1.1 {answer.status} Whatever", *(f"{n}: {v}" for n, v in fields.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if seen.method != "HEAD":
            writer.write(answer.body)
        await writer.drain()
        if answer.stream is None:
            return fields.get("Connection") != "close"
        async for chunk in answer.stream():
            writer.write(chunk)
            await writer.drain()
        return False
