"""The scheduler as a part of a process: beside the API, and as a command of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from machina.cli.scheduler import with_scheduler
from machina.observability.supervision import Supervisor
from machina.resources import open_resources
from machina.settings import Settings
from tests.fleet import make_settings
from tests.running import eventually
from tests.services import RedisServer

ROOT = Path(__file__).parents[2]


async def test_beside_the_api_it_is_one_of_the_loops_that_are_supervised(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = await _settings(tmp_path, redis_server)
    opening = with_scheduler(partial(open_resources, process="api"))
    async with opening(settings) as resources:
        assert set(resources.background) == {"writer", "reader", "reaper", "breaker", "scheduler"}
        await resources.store.definitions.save(
            "default", "agent", {"name": "a", "context": {"config-frequency": 10}}
        )
        supervisor = Supervisor()
        supervisor.start("scheduler", resources.background["scheduler"])
        fired = resources.metrics.schedules.ticks.labels("fired")
        await eventually(lambda: fired._value.get() == 1)
        assert supervisor.is_healthy
        await supervisor.aclose()
        (run,) = await resources.attempts.records.find({})
        assert (run.target_name, run.queue, run.status) == ("a", "low_priority", "scheduled")


async def test_without_it_the_loops_of_an_api_are_the_usual_ones(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with open_resources(await _settings(tmp_path, redis_server), process="api") as resources:
        assert "scheduler" not in resources.background


def test_the_command_says_what_it_reads_and_refuses_to_start_without_a_store(
    tmp_path: Path,
) -> None:
    names = {str(field.validation_alias) for field in Settings.model_fields.values()}
    environ = {k: v for k, v in os.environ.items() if k not in names} | {"PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "machina", "scheduler", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environ,
        )

    shown = run("--help")
    assert shown.returncode == 0
    assert "MACHINA_SCHEDULE_MIN_SECONDS" in shown.stdout
    refused = run()
    assert refused.returncode == 2
    assert refused.stderr.startswith("machina-server: MONGODB_URL is not set")


async def _settings(directory: Path, redis: RedisServer) -> Settings:
    return await asyncio.to_thread(make_settings, directory, redis.url)
