"""The deployment to break: real processes, each of them started again when it ends.

`dev` brings Redis, an API and a worker and restarts them by itself; further APIs and workers run
beside it on the same data, and here is who restarts those.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from bench.chaos.waiting import until
from tests.journeys.harness import Dev, Program, free_port

POLL_SECONDS: Final = 0.05
READY_SECONDS: Final = 60.0
RESTART_SECONDS: Final = 0.2
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
WATCHED_LOG: Final = ("error", "critical", "warning")


@dataclass(slots=True)
class Slot:
    """A place in the deployment that a process fills, one after the other."""

    part: str
    number: int
    command: tuple[str, ...] = ()
    """What to run; empty for what `dev` runs by itself."""
    program: Program | None = None
    exits: dict[int, int] = field(default_factory=dict)
    """Of those that ended: pid and exit code."""

    @property
    def name(self) -> str:
        """As people call it."""
        return f"{self.part}-{self.number}"


class NotStarted(Exception):
    """The deployment did not even come up."""


class Fleet:
    """Every process of one deployment. Made by `open_fleet`."""

    def __init__(self, dev: Dev, apis: int, workers: int) -> None:
        self.dev = dev
        self.ports = [dev.port, *(free_port() for _ in range(apis - 1))]
        place = ("--data-dir", str(dev.data_dir))
        self.slots = [Slot("redis", 0), Slot("api", 0), Slot("worker", 0)]
        self.slots += [
            Slot("api", number, ("api", "--port", str(port), *place))
            for number, port in enumerate(self.ports[1:], start=1)
        ]
        self.slots += [Slot("worker", number, ("worker", *place)) for number in range(1, workers)]

    @property
    def urls(self) -> list[str]:
        """Of the APIs, in the order of their numbers."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    def part(self, name: str) -> list[Slot]:
        """The slots of a part, by number."""
        return [slot for slot in self.slots if slot.part == name]

    def pid(self, slot: Slot) -> int | None:
        """The living process of a slot; blocks for a moment."""
        if slot.program is not None:
            return slot.program.pid if slot.program.process.poll() is None else None
        beside = {other.program.pid for other in self.slots if other.program is not None}
        return next((pid for pid in self.dev.pids(slot.part) if pid not in beside), None)

    async def start_beside(self) -> None:
        """Starts what `dev` does not."""
        for slot in self.slots:
            if slot.command:
                slot.program = await asyncio.to_thread(self.dev.run, *slot.command)

    async def keep(self) -> None:
        """Starts again whatever ended beside `dev`, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self.dev.main.process.poll() is not None:
                raise RuntimeError(f"dev ended: {self.dev.main.stderr[-2000:]}")
            for slot in self.slots:
                program = slot.program
                if program is None or program.process.poll() is None:
                    continue
                slot.exits[program.pid] = program.process.returncode
                slot.program = None
                await asyncio.sleep(RESTART_SECONDS)
                slot.program = await asyncio.to_thread(self.dev.run, *slot.command)

    async def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Waits until every API is ready and every worker runs.

        Raises:
            TimeoutError: one is not, in time.
        """
        async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
            for url in self.urls:
                await until(functools.partial(_is_ready, session, url), seconds=seconds)
            for slot in self.part("worker"):
                await until(functools.partial(self._is_up, slot), seconds=seconds)

    async def _is_up(self, slot: Slot) -> bool:
        return await asyncio.to_thread(self.pid, slot) is not None

    def log_counts(self) -> dict[str, int]:
        """How often each event of some importance stands in the logs of all processes."""
        counts: Counter[str] = Counter()
        for program in self.dev.programs:
            for text in (program.stdout, program.stderr):
                for line in text.splitlines():
                    event = _event_of(line)
                    if event is not None:
                        counts[event] += 1
        return dict(counts.most_common())


def _event_of(line: str) -> str | None:
    """The event of a log line, as `level event`; None for what is below a warning, or no log."""
    if line.startswith("Traceback "):
        return "traceback"
    for level in WATCHED_LOG:
        mark = f"[{level}"
        before, found, after = line.partition(mark)
        if found and len(before) < 40:
            return f"{level} {after.partition(']')[2].split()[0]}"
        if f'"level":"{level}"' in line or f'"level": "{level}"' in line:
            event = line.partition('"event":')[2].strip().strip('"').partition('"')[0]
            return f"{level} {event}"
    return None


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    timeout = aiohttp.ClientTimeout(total=3)
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with session.get(f"{url}/system/readiness", timeout=timeout) as response:
            return response.status == 200
    return False


def is_gone(pid: int) -> bool:
    """Whether a process has ended, collected by its parent or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def age_seconds(pid: int) -> float:
    """How long a process has been running; 0 when it is gone."""
    try:
        started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
    return uptime - started / TICKS_PER_SECOND


@asynccontextmanager
async def open_fleet(
    home: Path, *, apis: int, workers: int, environ: Mapping[str, str]
) -> AsyncIterator[Fleet]:
    """A deployment that is ready; afterwards nothing of it is left running.

    `home` exists and is where its data and output go.

    Raises:
        NotStarted: it did not get ready.
    """
    dev = await asyncio.to_thread(Dev, home, environ=environ)
    try:
        fleet = Fleet(dev, apis, workers)
        try:
            await asyncio.to_thread(dev.wait_ready, READY_SECONDS)
            await fleet.start_beside()
            await fleet.wait_ready()
        except (AssertionError, TimeoutError) as failed:
            raise NotStarted(f"The deployment did not get ready; see {home}.") from failed
        keeper = asyncio.create_task(fleet.keep())
        try:
            yield fleet
        finally:
            keeper.cancel()
            outcome = await asyncio.gather(keeper, return_exceptions=True)
        if isinstance(outcome[0], RuntimeError):
            raise outcome[0]
    finally:
        await asyncio.to_thread(_close_quietly, dev)


def _close_quietly(dev: Dev) -> None:
    """The harness shows all output at the end, which is meant for a failed test."""
    with contextlib.redirect_stdout(None):
        dev.close()
