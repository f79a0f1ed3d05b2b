"""Questions when all is quiet again: every run once more, its record, what is still held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import aiohttp

from bench.chaos.client import Place
from bench.chaos.oracle import Violation, Wrong
from bench.chaos.seen import Watch

T = TypeVar("T")

AT_ONCE: Final = 16
PAGE: Final = 500
EVERY: Final = 4
"""One run in so many is asked for what comes after its terminal event: nothing."""
ANSWER_SECONDS: Final = 15.0
QUIET_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.1


async def ask_again(
    place: Place, watches: Sequence[Watch], *, seconds: float = ANSWER_SECONDS
) -> None:
    """Replays every run from the beginning and reads its record; the answers go into `watches`.

    A single question gets its answer within `seconds`, or that is held against the deployment.
    """
    waiting = [(number, watch) for number, watch in enumerate(watches) if watch.run_id]
    waiting.reverse()

    async def ask(session: aiohttp.ClientSession) -> None:
        while waiting:
            number, watch = waiting.pop()
            url = place.urls[number % len(place.urls)]
            at_end = watch.ended is not None and number % EVERY == 0
            try:
                await _ask_about(session, url, watch, seconds, at_end=at_end)
            except (OSError, aiohttp.ClientError, TimeoutError) as failed:
                watch.trouble.append(f"asked afterwards: {type(failed).__name__} {failed}")

    async with place.session(seconds) as session:
        await asyncio.gather(*(ask(session) for _ in range(AT_ONCE)))


async def _ask_about(
    session: aiohttp.ClientSession, url: str, watch: Watch, seconds: float, *, at_end: bool
) -> None:
    path = f"{url}/execution/agent-run/{watch.run_id}"
    lines = await _again(lambda: _read_all(session, f"{path}/stream"), seconds)
    watch.replay_rest = lines.pop()
    watch.replay = lines
    row = (await _again(lambda: _read_json(session, f"{path}?compact=true"), seconds))["data"]
    watch.status, watch.outcome = row["status"], row.get("outcome")
    if at_end and watch.last_id is not None:
        after = f"{path}/stream?after={watch.last_id}"
        watch.asked_at_end = (await _again(lambda: _read_all(session, after), seconds))[:-1]


async def _again(call: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Repeats what failed to connect: everything should be up by now, but may be slow."""
    async with asyncio.timeout(seconds):
        while True:
            with suppress(aiohttp.ClientConnectionError):
                return await call()
            await asyncio.sleep(POLL_SECONDS)


async def _read_all(session: aiohttp.ClientSession, url: str) -> list[bytes]:
    """The lines of a stream that ends by itself, and last what is not a line any more."""
    async with session.get(url) as response:
        response.raise_for_status()
        *lines, rest = (await response.read()).split(b"\n")
        return [*filter(None, lines), rest]


async def _read_json(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as response:
        response.raise_for_status()
        return await response.json()


async def list_runs(place: Place) -> list[dict[str, Any]]:
    """Every run of agents that the deployment knows, from the first instance."""
    rows: list[dict[str, Any]] = []
    async with place.session(ANSWER_SECONDS) as session:
        while True:
            page = {"page": len(rows) // PAGE + 1, "page_size": PAGE, "compact": True}
            url = f"{place.urls[0]}/execution/agent-search"
            async with session.post(url, json={"filters": {}, "sorters": ["_id", 1]} | page) as got:
                got.raise_for_status()
                found = (await got.json())["data"]
            rows += found
            if len(found) < PAGE:
                return rows


async def held(place: Place) -> AsyncIterator[tuple[str, dict[str, int]]]:
    """Per instance, the permits and the readers that it counts as taken."""
    async with place.session(ANSWER_SECONDS) as session:
        for url in place.urls:
            health = await _read_json(session, f"{url}/system/streaming-health")
            yield (
                url,
                {
                    "permits": health["web_worker_streams"]["active"],
                    "readers": health["redis_streams"]["active_streams"],
                },
            )


async def leaks(place: Place, seconds: float = QUIET_SECONDS) -> list[Violation]:
    """What is not given back within `seconds` after the last client left."""
    deadline = time.monotonic() + seconds
    while True:
        left = [(url, what) async for url, what in held(place) if any(what.values())]
        if not left:
            return []
        if time.monotonic() >= deadline:
            return [Violation(Wrong.LEAKED, url, str(what)) for url, what in left]
        await asyncio.sleep(POLL_SECONDS)
