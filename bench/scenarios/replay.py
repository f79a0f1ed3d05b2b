"""Replays a finished run of ten thousand events, against the same bytes from memory."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from statistics import median

from bench.deployments import Deployment, running_generator, running_product
from bench.plan import Script
from bench.result import Cell, Goal, Result, Scenario, Session, Table

EVENTS = 10_000
ROUNDS = 30
GOAL_MB = 200.0
END = b"\r\n0\r\n\r\n"
RECEIVE = 1 << 20


@dataclass(slots=True)
class Path:
    """One way to get the bytes."""

    name: str
    deployment: Deployment
    path: str
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)


def run(session: Session) -> Result:
    """In turn, by one client that only receives; the bytes are compared once by each way."""
    events, rounds = (200, 2) if session.quick else (EVENTS, ROUNDS)
    with ExitStack() as stack:
        product = stack.enter_context(running_product(session.home("machina")))
        run_id, recorded = _record(product, events)
        file = session.home("recorded") / "run.ndjson"
        file.write_bytes(recorded)
        generator = stack.enter_context(running_generator(session.home("generator"), file))
        ways = [
            Path("machina: from the log", product, f"/execution/agent-run/{run_id}/stream"),
            Path("StreamingResponse, a write per event", generator, "/replay/by-event"),
            Path("StreamingResponse, 64 KiB per write", generator, "/replay/by-write"),
        ]
        for way in ways:
            if _get(way.deployment, way.path) != recorded:
                raise AssertionError(f"{way.name} gave other bytes than the live stream.")
        session.say(f"{rounds} rounds of {len(recorded) / 1e6:.2f} MB")
        for _ in range(rounds):
            for way in ways:
                _time(way, len(recorded))
    return _result(ways, len(recorded), recorded.count(b"\n"))


def _connect(deployment: Deployment) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", deployment.target.port, timeout=60)


def _record(product: Deployment, events: int) -> tuple[str, bytes]:
    """Runs an agent that says this much, and keeps what it said."""
    message = {"role": "user", "content": Script(tokens=events - 4).directive}
    with closing(_connect(product)) as connection:
        connection.request(
            "POST",
            product.target.path,
            json.dumps({"messages": [message]}),
            {"Authorization": f"Bearer {product.target.key}", "Content-Type": "application/json"},
        )
        response = connection.getresponse()
        return str(response.getheader("X-Run-Id")), _check(response.read(), events)


def _check(data: bytes, events: int) -> bytes:
    ids = [json.loads(line)["id"] for line in data.splitlines()]
    assert ids == [f"1-{number}" for number in range(1, events + 1)]
    return data


def _get(deployment: Deployment, path: str) -> bytes:
    with closing(_connect(deployment)) as connection:
        connection.request(
            "GET", path, headers={"Authorization": f"Bearer {deployment.target.key}"}
        )
        return connection.getresponse().read()


def _time(way: Path, size: int) -> None:
    request = (
        f"GET {way.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {way.deployment.target.key}\r\n\r\n"
    ).encode()
    cpu = sum(way.deployment.cpu().values())
    with socket.create_connection(("127.0.0.1", way.deployment.target.port), timeout=60) as peer:
        began = time.perf_counter()
        peer.sendall(request)
        received, tail = 0, b""
        while not tail.endswith(END):
            data = peer.recv(RECEIVE)
            if not data:
                raise AssertionError(f"{way.name}: the stream was cut after {received} bytes.")
            received += len(data)
            tail = (tail + data)[-len(END) :]
        way.walls.append(time.perf_counter() - began)
    assert received > size
    time.sleep(0.005)  # what follows a response is part of its cost
    way.cpus.append(sum(way.deployment.cpu().values()) - cpu)


def _result(ways: list[Path], size: int, events: int) -> Result:
    def rate(values: Callable[[Path], list[float]], way: Path) -> float:
        return size / 1e6 / median(values(way))

    def wall(way: Path) -> float:
        return rate(lambda way: way.walls, way)

    rows: list[list[Cell]] = [
        [
            way.name,
            round(median(way.walls) * 1000, 2),
            round(wall(way), 1),
            round(events / median(way.walls) / 1000, 1),
            round(rate(lambda way: way.cpus, way), 1),
            f"{wall(ways[0]) / wall(way):.2f}",
        ]
        for way in ways
    ]
    ours, by_event, by_write = (wall(way) for way in ways)
    head = ["way", "ms", "MB/s", "1000 events/s", "MB per CPU second", "machina's share of it"]
    return Result(
        goals=[
            Goal("replay", ours, GOAL_MB, "MB/s", at_most=False),
            Goal("replay over StreamingResponse per event", ours / by_event, 1.0, "×", False),
            Goal("replay over StreamingResponse at 64 KiB", ours / by_write, 1.0, "×", False),
        ],
        tables=[
            Table(
                f"{events} events, {size / 1e6:.2f} MB, medians of {len(ways[0].walls)} replays",
                head,
                rows,
            )
        ],
        checked=["the bytes of each way are those of the live stream"],
    )


SCENARIO = Scenario("replay", "Replay of a long run", run, needs_bench_group=False)
