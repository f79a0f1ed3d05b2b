"""A production deployment on this machine: Redis with a password, a store, start-prod.sh."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import httpx

from machina.auth import Keyring, Scope
from machina.cli.sample import load_sample
from machina.settings import Settings, variable_name
from machina.store import open_store
from tests.journeys.harness import (
    MARK,
    POLL_SECONDS,
    bare_environment,
    free_port,
    read_events,
    wait_until,
)
from tests.journeys.watcher import script
from tests.services import RedisServer, find_redis_6, require

ROOT: Final = Path(__file__).parents[2]
BIN: Final = Path(sys.executable).parent
"""Where the environment that runs the tests has its programs."""
PROJECT: Final = "default"
Process = subprocess.Popen[bytes]
STORES: Final = ("mongodb_url", "data_dir")


class Prepared(NamedTuple):
    """What a deployment needs before anybody can use it."""

    admin_key: str
    client_key: str
    agent_id: str


class LockedRedis(RedisServer):
    """A redis-server on loopback TCP that asks for a password, as compose.yaml's does."""

    def __init__(self) -> None:
        self.port = free_port()
        self.password = secrets.token_hex(16)
        binary = require(find_redis_6, optional=False)
        super().__init__(binary, "--port", str(self.port), "--bind", "127.0.0.1")
        with self.connect() as client:
            client.config_set("requirepass", self.password)

    def address(self, database: int) -> str:
        """The URL of one of its databases."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"


class Deployment:
    """A directory with start-prod.sh and .env, and the processes started from it.

    Args:
        home: an empty directory.
        settings: the lines of the .env file.
    """

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = dict(settings) | {"MACHINA_PORT": str(self.port)}
        self._mark = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._started: list[tuple[Process, Path]] = []
        shutil.copy(ROOT / "start-prod.sh", home)
        lines = (f"{name}={value}\n" for name, value in self.settings.items())
        (home / ".env").write_text("".join(lines))

    @property
    def environ(self) -> dict[str, str]:
        """What a process of this deployment has in its environment: no setting at all."""
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return bare_environment(PATH=path, **{MARK: self._mark})

    def start(
        self, *arguments: str, prefix: Sequence[str] = (), environ: Mapping[str, str] | None = None
    ) -> Process:
        """Runs start-prod.sh, or what `prefix` begins, from another directory than its own."""
        output = self.home / f"process-{next(self._numbers)}.log"
        command = (
            [*prefix, *arguments] if prefix else [str(self.home / "start-prod.sh"), *arguments]
        )
        with output.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd="/",
                env=self.environ | dict(environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append((process, output))
        return process

    def run(self, *arguments: str) -> str:
        """What a command of start-prod.sh that ends by itself prints."""
        return subprocess.run(
            [str(self.home / "start-prod.sh"), *arguments],
            cwd="/",
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.strip()

    def prepare(self) -> Prepared:
        """Puts the sample agent and a key of each scope into the store."""
        stores = {field: self.settings.get(variable_name(field)) for field in STORES}
        return asyncio.run(_prepare(Settings(_env_file=None, **cast(Any, stores))))

    def wait_ready(self, process: Process, seconds: float = 45.0) -> None:
        """Waits for the API to say that it is ready."""

        def ready() -> bool:
            assert process.poll() is None, (
                f"ended with {process.returncode}: {self.output(process)}"
            )
            with suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/system/readiness").status_code == 200
            return False

        wait_until(ready, f"the API on port {self.port} is ready", seconds)

    def wait_said(self, process: Process, text: str, count: int = 1) -> None:
        """Waits until the log of a process has this text so many times."""
        wait_until(lambda: self.output(process).count(text) >= count, f"{count} × {text}", 45)

    def output(self, process: Process) -> str:
        """What a process has said so far."""
        return next(path for started, path in self._started if started is process).read_text()

    def client(self, key: str | None = None) -> httpx.Client:
        """A client that opens a connection per request, so that any process may answer it."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=20,
        )

    def processes(self) -> set[int]:
        """Every process that lives and belongs to this deployment."""
        return {
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and _is_marked(entry, f"{MARK}={self._mark}".encode())
        }

    def close(self) -> None:
        """Kills what is left and shows what was said."""
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process, _ in self._started:
                process.poll()
            time.sleep(POLL_SECONDS)
        for process, path in self._started:
            process.wait(5)
            print(f"$ {process.args!r} -> {process.returncode}\n{path.read_text()}")
        assert not left


@contextmanager
def deployed(home: Path, settings: Mapping[str, str]) -> Iterator[Deployment]:
    """A deployment of which nothing is left afterwards, however the test ended."""
    deployment = Deployment(home, settings)
    try:
        yield deployment
    finally:
        deployment.close()


def read_one_stream(client: httpx.Client, agent_id: str) -> None:
    """Starts an agent that answers at once and sees it through."""
    body = script("tokens=3 delay_ms=0")
    with client.stream("POST", f"/agent/stream/{agent_id}", json=body) as response:
        assert response.status_code == 200, response.read()
        events = list(read_events(response))
    assert events[-1]["metadata"]["status"] == "executed"


async def _prepare(settings: Settings) -> Prepared:
    async with open_store(settings) as store:
        agent_id = ""
        for kind, definition in await asyncio.to_thread(load_sample):  # the agent comes last
            agent_id = await store.definitions.create(PROJECT, cast(Any, kind), definition)
        keyring = Keyring(store.keys, clock=time.monotonic, now=store.now)
        admin_key, _ = await keyring.create(Scope.ADMIN)
        client_key, _ = await keyring.create(Scope.CLIENT)
    return Prepared(admin_key, client_key, agent_id)


def _is_marked(entry: Path, mark: bytes) -> bool:
    try:
        if mark not in (entry / "environ").read_bytes():
            return False
        return (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:  # it ended meanwhile, or is somebody else's
        return False
