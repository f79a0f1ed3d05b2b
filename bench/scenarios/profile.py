"""Where API and worker spend their time under load, by sampling."""

from __future__ import annotations

import re
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from bench.deployments import running_product
from bench.load import Steady, measure, running_client
from bench.processes import python
from bench.result import Cell, Result, Scenario, Session, Table

LOAD = Steady(streams=200, per_second=50, ramp_seconds=4, window_seconds=12)
QUICK = Steady(streams=4, per_second=20, ramp_seconds=0.5, window_seconds=2)
PER_SECOND = 250
SHOWN = 14
LOOP = "uvloop"
LOOP_FRAMES = ("asyncio/runners.py::Runner.run", "asyncio/runners.py::run")
"""What stands on top while uvloop itself works: it has no Python frames."""
_FRAME = re.compile(r"(?P<function>.+?) \((?P<file>[^:]+)(?::\d+)?\)$")


def run(session: Session) -> Result:
    """Samples both processes during the same window of steady load."""
    load = QUICK if session.quick else LOAD
    folder = session.home("profiles")
    parts = ("api", "worker")
    with ExitStack() as stack:
        client = stack.enter_context(running_client())
        product = stack.enter_context(running_product(session.home("machina")))
        sampling: list[subprocess.Popen[bytes]] = []
        seconds = round(load.window_seconds)

        def begin() -> None:
            sampling.extend(
                _sample(product.parts[part]()[0], folder / f"{part}.txt", seconds) for part in parts
            )

        timer = threading.Timer(load.ramp_seconds + 0.5, begin)
        timer.start()
        session.say(f"{load.streams} streams × {load.per_second:g}/s under py-spy")
        measured = measure(client, product, load)
        timer.join()
        for process in sampling:
            if process.wait(60):
                raise RuntimeError("py-spy failed; it needs the right to trace processes.")
    result = Result(
        checked=[f"{measured.all_events} events: none lost, repeated or out of order"],
        notes=[
            f"{measured.delivered:.0f} events/s were delivered of {measured.offered:.0f} pieces/s "
            "offered; the sampler takes part of both cores."
        ],
    )
    for part in parts:
        result.tables += _tables(part, folder / f"{part}.txt")
    return result


def _sample(pid: int, file: Path, seconds: int) -> subprocess.Popen[bytes]:
    """Python frames of whichever thread holds the interpreter; waiting threads are not counted."""
    spy = Path(python()[0]).parent / "py-spy"
    command = [str(spy), "record", "--pid", str(pid), "--duration", str(seconds)]
    command += ["--gil", "--rate", str(PER_SECOND), "--format", "raw", "--output", str(file)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _tables(part: str, file: Path) -> list[Table]:
    own: Counter[str] = Counter()
    ours: Counter[str] = Counter()
    areas: Counter[str] = Counter()
    total = 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_name(frame) for frame in stack.split(";")]
        inner = next((f for f in reversed(frames) if f.startswith("machina/")), frames[0])
        total += int(count)
        own[frames[-1]] += int(count)
        ours[LOOP if frames[-1] in LOOP_FRAMES else inner] += int(count)
        areas[_area(frames[-1])] += int(count)
    title = {"api": "API", "worker": "Worker"}[part]
    return [
        _table(f"{title}: time by package, of {total} samples", "package", areas, total),
        _table(f"{title}: our functions, with the libraries they call", "function", ours, total),
        _table(f"{title}: own time of functions", "function", own, total),
    ]


def _table(title: str, head: str, counts: Counter[str], total: int) -> Table:
    rows: list[list[Cell]] = [
        [f"`{name}`", round(count / max(total, 1) * 100, 1)]
        for name, count in counts.most_common(SHOWN)
    ]
    return Table(title, [head, "%"], rows)


def _name(frame: str) -> str:
    found = _FRAME.match(frame)
    return f"{found['file']}::{found['function']}" if found else frame


def _area(name: str) -> str:
    """The package a frame belongs to; for ours, the station."""
    if name in LOOP_FRAMES:
        return LOOP
    file = name.partition("::")[0]
    if file.startswith("machina/"):
        return "/".join(file.removesuffix(".py").split("/")[:2])
    return file.partition("/")[0]


SCENARIO = Scenario("profile", "Profiles under load", run)
