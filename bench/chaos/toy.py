"""A toy server that speaks the same protocol, in this process: right, or wrong in one known way.

What it shows: a clean toy is judged clean although its clients leave, its streams end early, its
"workers" restart and its "instances" die; and a toy with a mistake is caught. Only then is it worth
listening to the oracle about the real thing.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from bench.chaos.plan import FaultPlan, Kind
from bench.chaos.seen import Fault, Id, read_id
from bench.chaos.toy_run import PLACE, Bug, ToyRun

INSTANCES: Final = 2
HEARTBEAT_SECONDS: Final = 0.05
EARLY_END_SHARE: Final = 0.02
CRASH_SHARE: Final = 0.01
_SCRIPT: Final = re.compile(r"tokens=(\d+) delay_ms=(\d+)")
_STREAM: Final = re.compile(r"/execution/agent-run/(\w+)(/stream|/cancel)?")


class Request:
    """What came in."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, target, _ = first.split(" ")
        parts = urlsplit(target)
        self.path = parts.path
        pairs = (line.partition(":") for line in lines if line)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        query = parse_qs(parts.query)
        self.after = self.headers.get("last-event-id") or query.get("after", [None])[0]
        self.body = json.loads(body) if body else {}


class Toy:
    """The toy deployment: two addresses, one state."""

    def __init__(self, bug: Bug | None, seed: int) -> None:
        self.urls: list[str] = []
        self.faults: list[Fault] = []
        self.quiet = False
        """No more accidents: the time of questions afterwards."""
        self.bug = bug
        self.dice = random.Random(f"{seed}:toy:{bug}")
        self._runs: dict[str, ToyRun] = {}
        self._keys: dict[str, ToyRun] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._permits = [0] * INSTANCES
        self._readers = [0] * INSTANCES
        self._refused: set[str] = set()

    async def serve(self, instance: int, reader: asyncio.StreamReader, writer: Writer) -> None:
        """One connection, which is one request."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            await self._answer(instance, Request(head, body), writer)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def _answer(self, instance: int, request: Request, writer: Writer) -> None:
        found = _STREAM.fullmatch(request.path)
        if request.path == "/system/streaming-health":
            figures = (
                {"active": self._permits[instance]},
                {"active_streams": self._readers[instance]},
            )
            await _send_json(writer, 200, dict(zip(HEALTH, figures, strict=True)))
        elif request.path == "/execution/agent-search":
            await _send_json(writer, 200, {"data": self._rows()})
        elif request.path.startswith("/agent/stream/"):
            await self._start(instance, request, writer)
        elif found and found[2] == "/stream":
            await self._resume(instance, self._runs[found[1]], request, writer)
        elif found:
            if found[2] == "/cancel":
                self._runs[found[1]].cancel()
            await _send_json(writer, 200, {"data": self._row(self._runs[found[1]])})

    async def _start(self, instance: int, request: Request, writer: Writer) -> None:
        key = request.headers["idempotency-key"]
        if self.bug is Bug.NO_RETRY_AFTER and key not in self._refused:
            self._refused.add(key)
            await _send_json(writer, 503, {"status": "error"})
            return
        run = self._keys.get(key)
        if run is not None and self.bug is not Bug.FORGETS_KEY:
            await self._resume(instance, run, request, writer)
            return
        run = self._keys[key] = self._new_run(request.body["messages"][0]["content"])
        self._permits[instance] += 1
        try:
            await self._relay(instance, run, Id(0, 0), writer)
        except OSError:
            if self.bug is Bug.KEEPS_PERMIT:
                self._permits[instance] += 1
            raise
        finally:
            self._permits[instance] -= 1

    def _new_run(self, script: str) -> ToyRun:
        found = _SCRIPT.search(script)
        tokens, delay_ms = (int(found[1]), int(found[2])) if found else (0, 0)
        run = ToyRun(f"{len(self._runs):024x}", tokens, delay_ms / 1000, self.bug)
        restart_at = self.dice.randrange(1, tokens) if len(self._runs) % 2 == 0 else None
        self._runs[run.id] = run
        task = asyncio.create_task(run.tell(restart_at))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if restart_at is not None and self.bug is not Bug.RESTARTS_UNASKED:
            self._note(Kind.WORKER_KILL)
        return run

    async def _resume(self, instance: int, run: ToyRun, request: Request, writer: Writer) -> None:
        after = read_id(request.after) or Id(0, 0)
        if self.bug is Bug.REFUSES_TRUE_ID and after.seq > PLACE and run.id not in self._refused:
            self._refused.add(run.id)
            await _send_json(writer, 409, {"status": "error"})
            return
        await self._relay(instance, run, after, writer)

    async def _relay(self, instance: int, run: ToyRun, after: Id, writer: Writer) -> None:
        self._readers[instance] += 1
        try:
            await _Relay(self, lambda: self._note(Kind.API_KILL, instance)).run(run, after, writer)
        except OSError:
            if self.bug is Bug.KEEPS_READER:
                self._readers[instance] += 1
            raise
        finally:
            self._readers[instance] -= 1

    def _note(self, kind: Kind, instance: int | None = None) -> None:
        """Owns up to a fault, as the command does that fires one."""
        now = time.monotonic()
        plan = FaultPlan(len(self.faults), kind, 0.0, 0)
        self.faults.append(Fault(plan, at=now, over=now + 0.001, instance=instance))

    def _rows(self) -> list[dict[str, Any]]:
        rows = [self._row(run) for run in self._runs.values()]
        if self.bug is Bug.INVENTS_A_RUN:
            rows.append({"_id": "f" * 24, "status": "agent-executed"})
        return rows

    def _row(self, run: ToyRun) -> dict[str, Any]:
        status = "failed" if self.bug is Bug.LIES_IN_RECORD else run.status
        if status == "executed":
            return {"_id": run.id, "status": "agent-executed"}
        return {"_id": run.id, "status": "failed", "outcome": status}


class _Relay:
    """One response: the entries of a run after an id."""

    def __init__(self, toy: Toy, crash: Callable[[], None]) -> None:
        self._toy = toy
        self._bug = toy.bug
        self._crash = crash

    async def run(self, run: ToyRun, after: Id, writer: Writer) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n"
            + f"X-Run-Id: {run.id}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        cursor = self._first(run, after)
        while True:
            while cursor < len(run.log):
                if not await self._send(run, cursor, after, writer):
                    return
                cursor += 1
            if run.status:
                break
            await run.wait_longer_than(cursor, HEARTBEAT_SECONDS)
            await _write(writer, b"\n")
        if self._bug is Bug.HANGS:
            for _ in range(100):
                await asyncio.sleep(HEARTBEAT_SECONDS)
                await _write(writer, b"\n")
        await _write(writer, b"")

    def _first(self, run: ToyRun, after: Id) -> int:
        """Where to begin: after the id, wherever that lies now."""
        cursor = next((n for n, (id, _) in enumerate(run.log) if id == after), -1) + 1
        if self._bug is Bug.SKIPS_ON_RESUME and 0 < cursor < len(run.log):
            return cursor + 1
        repeats = Bug.REPEATS_THE_END if run.status else Bug.REPEATS_ON_RESUME
        return cursor - 1 if cursor and self._bug is repeats else cursor

    async def _send(self, run: ToyRun, cursor: int, after: Id, writer: Writer) -> bool:
        """One entry; False when that ends the response."""
        line = self._line(run, cursor, after)
        chance = 1.0 if self._toy.quiet else self._toy.dice.random()
        if self._bug is None and chance < CRASH_SHARE:
            self._crash()
            await _write(writer, line[: len(line) // 2])
            writer.transport.abort()
            return False
        if self._bug is Bug.BREAKS_OFF and chance < 5 * CRASH_SHARE:
            writer.transport.abort()
            return False
        tears = self._bug is Bug.TEARS and chance < EARLY_END_SHARE
        await _write(writer, line[: len(line) // 2] if tears else line + b"\n")
        if tears or chance < EARLY_END_SHARE:
            await _write(writer, b"")
            return False
        return True

    def _line(self, run: ToyRun, cursor: int, after: Id) -> bytes:
        id, line = run.log[cursor]
        if id.seq == PLACE and self._bug is Bug.GARBLES:
            return line[:-1]
        if id.seq == PLACE and self._bug is Bug.REWRITES and run.status and after == Id(0, 0):
            return line.replace(b"tok", b"TOK")
        return line


Writer = asyncio.StreamWriter
HEALTH: Final = ("web_worker_streams", "redis_streams")
REASONS: Final = {200: "OK", 409: "Conflict", 503: "Unavailable"}


async def _write(writer: Writer, data: bytes) -> None:
    """One chunk; an empty one ends the body."""
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


async def _send_json(writer: Writer, status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    writer.write(
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()


@asynccontextmanager
async def open_toy(bug: Bug | None, seed: int) -> AsyncIterator[Toy]:
    """A toy that listens."""
    toy = Toy(bug, seed)
    servers = []
    connections: set[asyncio.Task[None]] = set()

    def serve(instance: int) -> Callable[[asyncio.StreamReader, Writer], None]:
        def accept(reader: asyncio.StreamReader, writer: Writer) -> None:
            task = asyncio.create_task(toy.serve(instance, reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        return accept

    for instance in range(INSTANCES):
        server = await asyncio.start_server(serve(instance), "127.0.0.1", 0)
        toy.urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        servers.append(server)
    try:
        yield toy
    finally:
        for server in servers:
            server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
