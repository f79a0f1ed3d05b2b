"""The lower bound: the same bytes from a generator inside the server, nothing stored or sent on.

Run as `python -m bench.reference.generator PORT [FILE]`; FILE holds a recorded run to replay.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from bench.reference.answer import lines, read_script
from machina.connectors.llm.script import Script

NDJSON = "application/x-ndjson"
WRITE_BYTES = 65_536


@functools.lru_cache(maxsize=64)
def _finished(script: Script) -> list[tuple[float, bytes]]:
    """Encoded once: the reference pays for sending, not for making events."""
    return list(lines(script))


async def _paced(script: Script) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    began = now()
    for due, line in _finished(script):
        ahead = began + due - now()
        if ahead > 0:
            await asyncio.sleep(ahead)
        yield line


def _in_writes(data: bytes) -> Iterator[bytes]:
    """Whole lines, in writes as large as the product's."""
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + WRITE_BYTES) + 1
        if end <= start:  # a line longer than a write goes alone
            end = data.index(b"\n", start) + 1
        yield data[start:end]
        start = end


async def _each(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def make_app(recorded: bytes = b"") -> FastAPI:
    """The server; `recorded` is what the replay routes send."""
    app = FastAPI()
    events = recorded.splitlines(keepends=True)
    writes = list(_in_writes(recorded))

    async def stream(request: Request) -> StreamingResponse:
        script = read_script(orjson.loads(await request.body()))
        return StreamingResponse(_paced(script), media_type=NDJSON)

    async def by_event() -> StreamingResponse:
        return StreamingResponse(_each(events), media_type=NDJSON)

    async def by_write() -> StreamingResponse:
        return StreamingResponse(_each(writes), media_type=NDJSON)

    app.post("/agent/stream/hello")(stream)
    app.get("/replay/by-event")(by_event)
    app.get("/replay/by-write")(by_write)
    return app


def main() -> None:
    """Serves until a signal."""
    port = int(sys.argv[1])
    recorded = Path(sys.argv[2]).read_bytes() if len(sys.argv) > 2 else b""
    uvicorn.run(make_app(recorded), port=port, log_level="warning", backlog=8192)


if __name__ == "__main__":
    main()
