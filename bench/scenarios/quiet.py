"""Thousands of quiet streams on one API process: delivery, memory, connections to Redis."""

from __future__ import annotations

import time

from bench.deployments import Deployment, Shape, running_product
from bench.load import LoadClient, ask_report, running_client
from bench.machine import cpu_seconds
from bench.plan import Load, Script, to_line
from bench.result import Goal, Result, Scenario, Session, Table

STREAMS = 4000
PER_SECOND = 1.0
STARTS_PER_SECOND = 80
SETTLE_SECONDS = 8.0
WINDOW_SECONDS = 20.0
LATEST_MS = 10.0
MOST_KIB = 12.0


def run(session: Session) -> Result:
    """One load; latencies are the stamped worker's, from the model's piece to the client."""
    streams = 20 if session.quick else STREAMS
    window = 1.0 if session.quick else WINDOW_SECONDS
    settle = 0.5 if session.quick else SETTLE_SECONDS
    with running_client() as client:
        home = session.home("machina")
        with running_product(home, Shape(threads=2 * streams, stamped=True)) as deployment:
            _warm_up(client, deployment, streams)
            session.say(f"opening {streams} streams")
            return _measure(client, deployment, streams, settle, window)


def _warm_up(client: LoadClient, deployment: Deployment, streams: int) -> None:
    """What a process allocates once is not a stream's."""
    count = max(5, streams // 20)
    client.send(to_line("load", Load(deployment.target, count, count / 100, Script(3, 100))))
    client.answer()
    ask_report(client, 0, 0, "warm-up")
    time.sleep(1)


def _measure(
    client: LoadClient, deployment: Deployment, streams: int, settle: float, window: float
) -> Result:
    ramp = streams / STARTS_PER_SECOND
    seconds = ramp + settle + window + 2
    script = Script(round(seconds * PER_SECOND), round(1000 / PER_SECOND))
    rss = deployment.rss("api")
    connections = [_connections(deployment)]
    client.send(to_line("load", Load(deployment.target, streams, ramp, script)))
    time.sleep(ramp / 2)
    connections.append(_connections(deployment))
    time.sleep(ramp / 2 + settle)
    connections.append(_connections(deployment))
    kib = (deployment.rss("api") - rss) / streams
    since, before, own_before = time.monotonic_ns(), deployment.cpu(), cpu_seconds(client.pid)
    time.sleep(window)
    until, after, own_after = time.monotonic_ns(), deployment.cpu(), cpu_seconds(client.pid)
    client.answer()
    report = ask_report(client, since, until, f"{streams} quiet streams")
    if report["open_throughout"] != streams:
        raise AssertionError(f"{report['open_throughout']} of {streams} were open throughout.")
    return _result(
        streams,
        connections,
        kib,
        report["latency_ms"],
        {part: (after[part] - before[part]) * 1e6 / report["events_in_window"] for part in after},
        (own_after - own_before) * 1e9 / (until - since),
        report["events"],
    )


def _connections(deployment: Deployment) -> int:
    assert deployment.redis is not None
    return deployment.redis.connections()


def _result(
    streams: int,
    connections: list[int],
    kib: float,
    latency: dict[str, float],
    cost: dict[str, float],
    client_share: float,
    events: int,
) -> Result:
    per_event = ", ".join(f"{us:.1f}" for us in cost.values())
    return Result(
        goals=[
            Goal(f"delivery at {streams} quiet streams, p99", latency["p99"], LATEST_MS, "ms"),
            Goal("API memory per quiet stream", kib, MOST_KIB, "KiB"),
            Goal(
                "Redis connections added by the second half of the streams",
                connections[2] - connections[1],
                0,
                "",
            ),
        ],
        tables=[
            Table(
                f"{streams} streams × {PER_SECOND:g} piece/s on one API process and one worker",
                ["what", "figure"],
                [
                    ["delivery, model to client, p50, ms", round(latency["p50"], 2)],
                    ["delivery, p99, ms", round(latency["p99"], 2)],
                    ["delivery, longest, ms", round(latency["most"], 2)],
                    ["deliveries measured", latency["count"]],
                    ["API memory per stream, KiB", round(kib, 2)],
                    ["API, worker, Redis, µs/event", per_event],
                    [
                        "Redis connections with no, half, all streams",
                        ", ".join(map(str, connections)),
                    ],
                ],
            )
        ],
        checked=[
            f"{events} events of {streams} streams: none lost, repeated or out of order",
            f"{streams} streams open during the whole window",
        ],
        notes=[f"The load client used {client_share:.0%} of a core."],
    )


SCENARIO = Scenario("quiet", "Thousands of quiet streams", run, needs_bench_group=False)
