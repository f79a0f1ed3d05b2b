"""An agent with a frequency, through real processes: it fires, once each time, whatever dies."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final

import httpx
import pytest

from tests.journeys.harness import Dev, wait_until

pytestmark = [pytest.mark.journey, pytest.mark.timeout(90)]

QUICK: Final = {"MACHINA_SCHEDULE_MIN_SECONDS": "0.5"}
EVERY_SECONDS: Final = 1.2


def runs_of(client: httpx.Client, agent: str) -> list[dict[str, Any]]:
    body = {"filters": {"name": agent}, "sorters": ["_id", 1], "page_size": 500}
    rows: list[dict[str, Any]] = client.post("/execution/agent-search", json=body).json()["data"]
    return rows


def schedule(client: httpx.Client, name: str) -> dict[str, Any]:
    row: dict[str, Any] = client.get(f"/schedules/{name}").json()["data"]
    return row


def install(client: httpx.Client, name: str, **context: Any) -> None:
    body = {"name": name, "workflows": [], "context": context}
    answer = client.post("/agent", json=body)
    assert answer.status_code == 200, answer.text


def fired(client: httpx.Client, name: str) -> int:
    answer = client.get(f"/schedules/{name}")
    return int(answer.json()["data"]["fired"]) if answer.status_code == 200 else 0


def is_settled(client: httpx.Client, name: str) -> bool:
    """Whether there are as many runs as ticks were counted, and all of them are over."""
    runs = runs_of(client, name)
    over = all(run["status"] in ("agent-executed", "failed") for run in runs)
    return over and len(runs) == schedule(client, name)["fired"]


def test_dev_fires_a_frequency_once_each_time_beside_more_schedulers_and_after_kills(
    start_dev: Callable[..., Dev],
) -> None:
    dev = start_dev(environ=QUICK)
    with dev.client() as client:
        install(client, "ticker", **{"config-frequency": EVERY_SECONDS / 60})
        install(client, "setup", **{"config-frequency": 99999999})
        beside = [dev.run("scheduler", "--data-dir", str(dev.data_dir)) for _ in range(2)]
        for program in beside:
            wait_until(lambda p=program: "scheduler.started" in p.stderr + p.stdout, "it runs")  # type: ignore[misc]  # the loop's own value
        wait_until(lambda: fired(client, "ticker") >= 4, "four ticks")
        beside[0].send(signal.SIGKILL)
        beside[0].wait()
        api = dev.pid("api")
        wait_until(lambda: fired(client, "ticker") >= 6, "two more ticks")
        beside[1].send(signal.SIGTERM)
        assert beside[1].wait() == 0
        assert dev.pid("api") == api
    dev.main.send(signal.SIGKILL)
    dev.main.wait()
    dev.wait_gone()
    dev.start()
    dev.wait_ready()
    with dev.client() as client:
        before = schedule(client, "ticker")["fired"]
        wait_until(lambda: fired(client, "ticker") >= before + 2, "two ticks after the restart")
        assert client.post("/schedules/ticker/pause").status_code == 200
        wait_until(lambda: is_settled(client, "ticker"), "every tick has its run", 20)
        assert schedule(client, "ticker")["state"] == "paused"
        assert schedule(client, "setup")["state"] == "done"
        assert len(runs_of(client, "setup")) == 1
