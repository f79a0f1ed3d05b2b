"""Clients that read a byte a second: what they cost an API, and whether it gets all of it back."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.chaos.aftermath import ask_again, held, leaks, list_runs
from bench.chaos.client import Client, Place
from bench.chaos.fleet import Fleet, open_fleet
from bench.chaos.load import Shape, count_logs
from bench.chaos.oracle import Violation, Wrong
from bench.chaos.plan import Habits, RunPlan, client_random
from bench.chaos.seen import Watch
from bench.chaos.verdict import Verdict, convict

SLOW_SECONDS: Final = 60.0
FILL_SECONDS: Final = 10.0
"""Until every buffer on the way is full; only then does anybody wait."""
FREE_SECONDS: Final = 45.0
MOST_GROWTH_MB: Final = 30.0
FD_MARGIN: Final = 2
STARTERS: Final = 10
"""So many start runs of their own, which takes permits; the others watch one that has ended."""
TOKENS: Final = 4_000
"""Together some 400 KB per stream: more than the small buffers below take."""
DELAY_MS: Final = 1
SMALL_BUFFER: Final = 2_304
SMALL_SEGMENT: Final = 536
"""On loopback a large segment would make the kernel buffer megabytes at the sender."""
HABITS: Final = Habits(drop_share=0.0, cancel_share=0.0, run_seconds=120.0)
SETTLE_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Sample:
    """An API at one moment."""

    at: float
    rss_mb: float
    fds: int
    permits: int
    readers: int


async def run_slow_readers(
    seed: int, readers: int, shape: Shape, verdict: Verdict, home: Path
) -> None:
    """Fills the verdict: growth of the only API, and when permits and descriptors were back."""
    async with open_fleet(home, apis=1, workers=1, environ=shape.environ(readers)) as fleet:
        place = Place(fleet.urls, fleet.dev.admin_key)
        starters = min(STARTERS, readers)
        watches = await _watch_all(seed, place, _plans(seed, "warm", starters))
        await asyncio.sleep(SETTLE_SECONDS)
        before = await _sample(fleet, place)
        plans = _plans(seed, "slow", starters)
        requests = [_start(fleet, plan) for plan in plans]
        requests += [_join(fleet, watches[0].run_id)] * (readers - starters)
        samples = await _read_slowly(fleet, place, requests)
        watches += await _watch_all(seed, place, plans)
        leaked = await leaks(place)
        await ask_again(place, watches)
        count_logs(verdict, fleet)
        convict(verdict, watches, [], await list_runs(place), leaked)
        _measure(verdict, before, samples)


def _plans(seed: int, name: str, count: int) -> list[RunPlan]:
    return [RunPlan(f"{name}-{seed}-{number}", TOKENS, DELAY_MS) for number in range(count)]


async def _watch_all(seed: int, place: Place, plans: Sequence[RunPlan]) -> list[Watch]:
    """Proper clients; for runs that exist already they join by the key."""
    async with place.session(HABITS.silence_seconds) as session:
        clients = [
            Client(place, session, HABITS, client_random(seed, n)) for n in range(len(plans))
        ]
        return await asyncio.gather(
            *(client.watch(plan) for client, plan in zip(clients, plans, strict=True))
        )


async def _read_slowly(fleet: Fleet, place: Place, requests: Sequence[bytes]) -> list[Sample]:
    began = time.monotonic()
    samples: list[Sample] = []
    async with asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(_slow_reader(fleet.dev.port, request))
        while time.monotonic() - began < SLOW_SECONDS + 2:
            await asyncio.sleep(1)
            samples.append(await _sample(fleet, place, began))
    return samples


def _start(fleet: Fleet, plan: RunPlan) -> bytes:
    """The request that starts a run, as bytes."""
    body = json.dumps(plan.body).encode()
    return (
        f"POST /agent/stream/hello HTTP/1.1\r\nHost: 127.0.0.1:{fleet.dev.port}\r\n"
        f"Authorization: Bearer {fleet.dev.admin_key}\r\nIdempotency-Key: {plan.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _join(fleet: Fleet, run_id: str) -> bytes:
    """The request that replays a run, as bytes."""
    return (
        f"GET /execution/agent-run/{run_id}/stream HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{fleet.dev.port}\r\n"
        f"Authorization: Bearer {fleet.dev.admin_key}\r\n\r\n"
    ).encode()


async def _slow_reader(port: int, request: bytes) -> None:
    """One byte a second until the server has had enough or the time is over."""
    loop = asyncio.get_running_loop()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SMALL_SEGMENT)
        slow.setblocking(False)
        await loop.sock_connect(slow, ("127.0.0.1", port))
        await loop.sock_sendall(slow, request)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(SLOW_SECONDS):
                while await loop.sock_recv(slow, 1):  # noqa: ASYNC110  # the slowness is the point
                    await asyncio.sleep(1)


async def _sample(fleet: Fleet, place: Place, began: float = 0.0) -> Sample:
    pid = await asyncio.to_thread(fleet.pid, fleet.part("api")[0])
    if pid is None:
        raise RuntimeError("the API is gone")
    rss_kb, fds = await asyncio.to_thread(_look_at, pid)
    ((_, what),) = [found async for found in held(place)]
    at = round(time.monotonic() - began, 1)
    return Sample(at, round(rss_kb / 1024, 1), fds, what["permits"], what["readers"])


def _look_at(pid: int) -> tuple[int, int]:
    """Resident memory in KiB, and open descriptors."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]), len(os.listdir(f"/proc/{pid}/fd"))


def _measure(verdict: Verdict, before: Sample, samples: Sequence[Sample]) -> None:
    peak = max(samples, key=lambda sample: sample.rss_mb)
    growth = round(peak.rss_mb - before.rss_mb, 1)
    most = max(sample.permits for sample in samples)
    later = [sample for sample in samples if sample.at >= FILL_SECONDS]
    free = next((s.at - FILL_SECONDS for s in later if not s.permits and not s.readers), None)
    fds = next((s.at - FILL_SECONDS for s in later if s.fds <= before.fds + FD_MARGIN), None)
    verdict.limits |= {
        "growth of the API in MB": (growth, MOST_GROWTH_MB),
        "permits and readers back": (free, FREE_SECONDS),
        "descriptors back": (fds, FREE_SECONDS),
    }
    verdict.counters["most permits held at once"] = most
    verdict.details["Samples"] = [before, *samples[:: max(1, len(samples) // 20)]]
    if growth > MOST_GROWTH_MB:
        verdict.violations.append(Violation(Wrong.LEAKED, "", f"the API grew by {growth} MB"))
    for name, at in (("permits and readers", free), ("descriptors", fds)):
        if at is None or at > FREE_SECONDS:
            verdict.violations.append(Violation(Wrong.LEAKED, "", f"{name} back after {at} s"))
    if not most:
        verdict.missing.append("no slow reader ever held a permit")
