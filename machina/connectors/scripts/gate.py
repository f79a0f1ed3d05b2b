"""The way out of scripts: a proxy on loopback that connects only where the egress policy allows.

It speaks HTTP's `CONNECT` and nothing else. The kernel lets a guarded script connect to this port
alone, so that there is no other way.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from machina.errors import EgressFailed

log = structlog.get_logger(__name__)

Check = Callable[[str], Awaitable[list[str]]]
"""The addresses that may be connected to for a URL; raises `EgressFailed`."""

MAX_TUNNELS: Final = 512
MAX_HEAD_BYTES: Final = 8_192
HEAD_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 600.0
_TARGET: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}")
_PIECE: Final = 65_536
_ASKED: Final = "Proxy-Authenticate: Basic realm=script\r\n"


class Gate:
    """The proxy of one worker process, for all its scripts."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._server: asyncio.Server | None = None
        self._tunnels: set[asyncio.Task[None]] = set()
        self.token = secrets.token_urlsafe(24)
        self.port = 0

    @property
    def url(self) -> str:
        """What programs know a proxy by."""
        return f"http://script:{self.token}@127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Begins to listen on a free port of loopback."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=MAX_HEAD_BYTES
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Ends all tunnels."""
        if self._server is not None:
            self._server.close()
        for tunnel in self._tunnels:
            tunnel.cancel()
        if self._tunnels:
            await asyncio.wait(self._tunnels)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is accepted in a task")
        self._tunnels.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            log.debug("script.tunnel_broken", error=type(error).__name__)
        except asyncio.CancelledError:
            # The server's own callback would report it; the end is ours, and meant.
            log.debug("script.tunnel_ended")
        finally:
            self._tunnels.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if len(self._tunnels) > MAX_TUNNELS:
            await _answer(writer, 503, "too many connections of scripts are open")
            return
        if not self._is_authorized(head):
            await _answer(writer, 407, "wrong token", _ASKED)
            return
        method, _, rest = head.partition("\r\n")[0].partition(" ")
        if method != "CONNECT":
            await _answer(writer, 405, "only CONNECT is served here")
            return
        target = rest.rpartition(" ")[0]
        if not _TARGET.fullmatch(target):
            await _answer(writer, 400, "a target is host:port")
            return
        try:
            far_reader, far_writer = await self._connect(target)
        except EgressFailed as error:
            log.info("script.egress_refused", target=target[:100], code=error.code)
            await _answer(writer, 403 if error.code == "egress_refused" else 502, error.message)
            return
        except (OSError, TimeoutError) as error:
            await _answer(writer, 502, f"{target[:100]}: {error or 'no answer in time'}")
            return
        try:
            await _answer(writer, 200, "")
            await _join(reader, writer, far_reader, far_writer)
        finally:
            far_writer.close()

    async def _connect(self, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to one of the checked addresses. Nobody looks the name up again."""
        addresses = await self._check(f"https://{target}/")
        port = int(target.rpartition(":")[2])
        last: Exception = OSError("no address")
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(address, port)
            except (OSError, TimeoutError) as error:
                last = error
        raise last

    def _is_authorized(self, head: str) -> bool:
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            if name.strip().lower() == "proxy-authorization":
                wanted = base64.b64encode(f"script:{self.token}".encode()).decode()
                given = value.strip().removeprefix("Basic ").strip()
                return hmac.compare_digest(given.encode(), wanted.encode())
        return False


async def _answer(writer: asyncio.StreamWriter, status: int, text: str, extra: str = "") -> None:
    words = {200: "Connection established", 403: "Forbidden", 407: "Authentication required"}
    body = text.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace")
    length = f"Content-Length: {len(body)}\r\n" if status != 200 else ""
    head = f"HTTP/1.1 {status} {words.get(status, 'Not possible')}\r\n{extra}{length}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def _join(
    near_reader: asyncio.StreamReader,
    near_writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Copies both ways until both have ended."""
    async with asyncio.TaskGroup() as both:
        both.create_task(_copy(near_reader, far_writer))
        both.create_task(_copy(far_reader, near_writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, TimeoutError):
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                piece = await reader.read(_PIECE)
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
    with suppress(OSError):
        writer.write_eof()
