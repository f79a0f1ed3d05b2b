"""API and worker as the container runs them: no root, no capability, only /tmp to write to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.production import BIN, ROOT, Deployment, LockedRedis, deployed, read_one_stream
from tests.deploy.test_containerfile import environment, health_command, read_stages
from tests.journeys.harness import wait_until
from tests.mongo_server import MongoServer
from tests.services import ServiceMissing, require

pytestmark = [pytest.mark.journey, pytest.mark.timeout(120)]

UID: Final = "10001"
PROCESSES: Final = 2
LOOK_AROUND: Final = """
import errno, os, sys, tempfile
assert (os.getuid(), os.getgid()) == (10001, 10001)
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
assert status["NoNewPrivs"] == "1"
for place in ("/", os.getcwd(), os.path.dirname(sys.executable), "/var/tmp", "/root"):
    try:
        open(os.path.join(place, "written"), "w")
    except OSError as refused:
        assert refused.errno == errno.EROFS, refused
    else:
        raise SystemExit(f"{place} can be written")
tempfile.TemporaryFile().write(b"the one place")
print("as it should be")
"""


def find_bubblewrap() -> Path:
    """What builds the walls here, as a container runtime would."""
    found = shutil.which("bwrap")
    if found is None:
        raise ServiceMissing("bwrap is missing; install the package bubblewrap.")
    return Path(found)


def make_walls() -> list[str]:
    """The beginning of a command that runs what follows behind them."""
    needed = {str(path) for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix))}
    return [
        str(require(find_bubblewrap, optional=True)),
        *("--die-with-parent", "--unshare-user", "--uid", UID, "--gid", UID, "--unshare-pid"),
        *("--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--tmpfs", "/tmp"),
        *(word for path in sorted(needed) for word in ("--ro-bind", path, path)),
        *("--chdir", "/"),
    ]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Nothing of it is started yet; its settings are those of the image and of compose.yaml."""
    image = environment(read_stages()[-1])
    own = {"MACHINA_HOST": "127.0.0.1", "GUNICORN_WORKERS": str(PROCESSES)}
    with closing(LockedRedis()) as redis, closing(MongoServer()) as mongo:
        services = {
            "REDIS_URL": redis.address(0),
            "REDIS_PUBSUB_URL": redis.address(1),
            "MONGODB_URL": mongo.url,
        }
        settings = {k: v for k, v in image.items() if k != "PATH"} | own | services
        with deployed(tmp_path, settings) as made:
            yield made


def test_the_walls_are_those_of_the_container() -> None:
    done = subprocess.run(
        [*make_walls(), sys.executable, "-c", LOOK_AROUND],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "as it should be\n", done.stderr


def test_api_and_worker_work_behind_them_and_stop_with_0(deployment: Deployment) -> None:
    program = str(BIN / "machina-server")
    around, settings = make_walls(), deployment.settings
    api = deployment.start(program, "api", prefix=around, environ=settings)
    worker = deployment.start(program, "worker", prefix=around, environ=settings)
    prepared = deployment.prepare()
    deployment.wait_said(api, "api.listening", PROCESSES)
    deployment.wait_said(worker, "worker.started")

    assert _check_health(deployment) == 0
    with deployment.client(prepared.client_key) as client:
        read_one_stream(client, prepared.agent_id)

    for process in (api, worker):
        os.kill(_find_inside(deployment, process.pid), signal.SIGTERM)
        assert process.wait(30) == 0
    wait_until(lambda: not deployment.processes(), "every process has ended")
    assert _check_health(deployment) != 0


def _check_health(deployment: Deployment) -> int:
    """The exit code of the image's HEALTHCHECK."""
    _, *arguments = health_command()
    return subprocess.run(
        [sys.executable, *arguments], env=deployment.settings, capture_output=True, check=False
    ).returncode


def _find_inside(deployment: Deployment, outer: int) -> int:
    """The process that was started behind the walls: bwrap, its init, and then this one."""
    init = int(Path(f"/proc/{outer}/task/{outer}/children").read_text())
    return int(Path(f"/proc/{init}/task/{init}/children").read_text())
