"""Servers under measurement: processes of our own, their output in files, all ended afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import redis

from bench.machine import descendants, started_at
from machina.cli.redis_child import find_redis_server
from tests.journeys.harness import free_port

ROOT: Final = Path(__file__).parents[1]
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.05


class NotStarted(RuntimeError):
    """A server did not come up; the message ends with what it said."""


class Process:
    """One program and what it starts, in a session of its own."""

    def __init__(
        self, name: str, command: Sequence[str], *, home: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.output = home / f"{name}.log"
        self._command = list(command)
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=home,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pids(self) -> list[int]:
        """The program and everything it started that lives."""
        return descendants(self._process.pid)

    def said(self, pattern: str) -> bool:
        """Whether its output matches already.

        Raises:
            NotStarted: it has ended.
        """
        text = self.output.read_text(errors="replace")
        if self._process.poll() is not None:
            raise NotStarted(f"{' '.join(self._command)} ended:\n{text[-2000:]}")
        return re.search(pattern, text) is not None

    def wait_until_said(self, pattern: str, times: int = 1) -> None:
        """Waits until its output matches so many times. Raises `NotStarted`."""
        deadline = time.monotonic() + START_SECONDS
        while not self.said(pattern) or len(re.findall(pattern, self._text())) < times:
            if time.monotonic() > deadline:
                raise NotStarted(f"{self.name} did not say {pattern!r}:\n{self._text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def wait_port(self, port: int) -> None:
        """Waits until it accepts connections. Raises `NotStarted`."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.said("")
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if time.monotonic() > deadline:
                raise NotStarted(f"{self.name} does not listen:\n{self._text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Asks it to end, then kills whatever is left of it."""
        started = {pid: started_at(pid) for pid in self.pids}
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        for pid, began in started.items():
            if began is not None and started_at(pid) == began:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _text(self) -> str:
        return self.output.read_text(errors="replace")


class RedisChild:
    """A Redis as `dev` runs it (AOF, everysec, nothing evicted), but on TCP as deployments do."""

    def __init__(self, home: Path) -> None:
        directory = home / "redis"
        directory.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        binary = find_redis_server()
        self.version = ".".join(map(str, binary.version))
        command = [
            str(binary.path), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory),
            "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
            "--maxmemory-policy", "noeviction", "--daemonize", "no",
        ]  # fmt: skip
        self._process = Process("redis", command, home=home, environ=os.environ)
        self._process.wait_until_said("Ready to accept connections")

    @property
    def pids(self) -> list[int]:
        """The server itself; a child that rewrites the AOF is not counted."""
        return self._process.pids[:1]

    def connect(self) -> redis.Redis:
        """A client for looking from outside; close it."""
        return redis.Redis.from_url(self.url, protocol=2)

    def connections(self) -> int:
        """Clients it serves, without the one that asks."""
        with self.connect() as client:
            return len(client.client_list()) - 1

    def close(self) -> None:
        """Ends it."""
        self._process.close()


@contextmanager
def running_redis(home: Path) -> Iterator[RedisChild]:
    """A Redis of one's own under `home`."""
    child = RedisChild(home)
    try:
        yield child
    finally:
        child.close()


def python(*arguments: str) -> list[str]:
    """The command line of our own interpreter."""
    return [sys.executable, *arguments]
