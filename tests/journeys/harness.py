"""Real processes for journeys: a `dev` of one's own, its parts, more parts beside it, all ended."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx

from machina.settings import Settings

START_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
MARK: Final = "MACHINA_TEST_MARK"
HELLO: Final = {"messages": [{"role": "user", "content": "What can you do?"}]}

Event = dict[str, Any]


def free_port() -> int:
    """A port that is free now, from below the range the kernel hands out by itself."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as attempt, suppress(OSError):
            attempt.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Polls until the condition holds; fails with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(POLL_SECONDS)


def bare_environment(**more: str) -> dict[str, str]:
    """Our environment without any setting of Machina, plus `more`."""
    settings = {str(field.validation_alias) for field in Settings.model_fields.values()}
    return {k: v for k, v in os.environ.items() if k not in settings} | more


class Program:
    """One `machina-server` command as a process of its own, with its output in files."""

    _numbers = itertools.count(1)

    def __init__(
        self, arguments: Iterable[str], *, directory: Path, environ: Mapping[str, str]
    ) -> None:
        name = f"program-{next(self._numbers)}"
        self.stdout_file = directory / f"{name}.out"
        self.stderr_file = directory / f"{name}.err"
        self.arguments = tuple(arguments)
        with self.stdout_file.open("wb") as out, self.stderr_file.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "machina", *self.arguments],
                cwd=directory,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id of the command itself."""
        return self.process.pid

    @property
    def stdout(self) -> str:
        """What it said so far."""
        return self.stdout_file.read_text()

    @property
    def stderr(self) -> str:
        """What it complained about so far."""
        return self.stderr_file.read_text()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the command itself."""
        self.process.send_signal(number)

    def wait(self, seconds: float = 15.0) -> int:
        """The exit code, once it ended."""
        return self.process.wait(seconds)

    def show(self) -> None:
        """Prints its output; pytest shows that when the test failed."""
        print(f"$ machina-server {' '.join(self.arguments)}  -> {self.process.poll()}")
        print(self.stdout, self.stderr, sep="\n")


class Dev:
    """A `machina-server dev` on a directory and port of its own, and everything started beside it.

    Nothing it started outlives `close`, however the test ended.
    """

    def __init__(
        self,
        home: Path,
        *arguments: str,
        data_dir: Path | None = None,
        port: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.data_dir = data_dir or home / "data"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._mark = uuid.uuid4().hex
        self.environ = bare_environment(**{MARK: self._mark}, **(environ or {}))
        self.programs: list[Program] = []
        self.main = self.start(*arguments)

    def start(self, *arguments: str) -> Program:
        """Starts `dev` on this directory and port, the first time or once more."""
        self.main = self.run(
            "dev", "--port", str(self.port), "--data-dir", str(self.data_dir), *arguments
        )
        return self.main

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Program:
        """Starts any command of `machina-server` in the same place."""
        program = Program(
            arguments, directory=self.home, environ=self.environ | dict(environ or {})
        )
        self.programs.append(program)
        return program

    def wait_ready(self, seconds: float = START_SECONDS, *, port: int | None = None) -> None:
        """Waits for the API (of another port: one started beside) to say that it is ready."""
        last = self.programs[-1]

        def ready() -> bool:
            assert last.process.poll() is None, f"ended with {last.process.returncode}"
            connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=2)
            with closing(connection), suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/system/readiness")
                return connection.getresponse().status == http.client.OK
            return False

        wait_until(ready, f"the API on port {port or self.port} is ready", seconds)

    def start_api(self, *arguments: str, environ: Mapping[str, str] | None = None) -> int:
        """Starts one more API on the same data; returns its port, once it is ready."""
        port = free_port()
        self.run(
            *("api", "--port", str(port), "--data-dir", str(self.data_dir), *arguments),
            environ=environ,
        )
        self.wait_ready(port=port)
        return port

    def start_worker(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Program:
        """Starts one more worker on the same data."""
        return self.run("worker", "--data-dir", str(self.data_dir), *arguments, environ=environ)

    @property
    def admin_key(self) -> str:
        """The key that `dev` wrote for its user."""
        return (self.data_dir / "admin.key").read_text().strip()

    def client(self, *, key: str | None = None, port: int | None = None) -> httpx.Client:
        """A client of the API that shows a key, by default the admin's. Close it."""
        return httpx.Client(
            base_url=f"http://127.0.0.1:{port or self.port}",
            headers={"Authorization": f"Bearer {key or self.admin_key}"},
            timeout=httpx.Timeout(20, connect=5),
        )

    def processes(self) -> dict[int, str]:
        """Every living process that belongs here: pid and command line."""
        return {
            pid: command
            for pid, command in _living()
            if self._is_ours(pid) and "resource_tracker" not in command
        }

    def pids(self, part: str) -> list[int]:
        """The processes of a part: `dev`, `api`, `worker` or `redis`."""
        wanted = "redis-server" if part == "redis" else f"-m machina {part}"
        return [pid for pid, command in self.processes().items() if wanted in command]

    def pid(self, part: str) -> int:
        """The one process of a part."""
        (pid,) = self.pids(part)
        return pid

    def wait_gone(self, seconds: float = 10.0) -> None:
        """Waits until no process is left."""
        wait_until(lambda: not self.processes(), "all processes ended", seconds)

    def close(self) -> None:
        """Kills whatever is left and shows what was said."""
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for program in self.programs:
                program.process.poll()
            time.sleep(POLL_SECONDS)
        for program in self.programs:
            program.process.wait(5)
            program.show()
        assert not left

    def _is_ours(self, pid: int) -> bool:
        try:
            if f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                return True
            # Redis writes its title over its environment; it works in its data directory.
            return Path(f"/proc/{pid}/cwd").readlink() == self.data_dir / "redis"
        except OSError:  # it ended meanwhile, or is somebody else's
            return False


@contextmanager
def running_dev(home: Path, *arguments: str, **options: Any) -> Iterator[Dev]:
    """A `dev` that is ready; see `Dev`."""
    dev = Dev(home, *arguments, **options)
    try:
        dev.wait_ready()
        yield dev
    finally:
        dev.close()


def read_events(response: httpx.Response) -> Iterator[Event]:
    """The events of an NDJSON response as they come; heartbeats are passed over."""
    rest = b""
    for piece in response.iter_raw():
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line)
    assert rest == b"", f"the stream ended within a line: {rest!r}"


def stream(
    client: httpx.Client, path: str = "/agent/stream/hello", body: Mapping[str, Any] = HELLO
) -> tuple[str, list[Event]]:
    """Starts an agent and reads its stream to the end: the run's id and the events."""
    with client.stream("POST", path, json=body) as response:
        assert response.status_code == 200, response.read()
        return response.headers["x-run-id"], list(read_events(response))


def replay(client: httpx.Client, run_id: str, after: str | None = None) -> list[Event]:
    """The events of a run from the beginning, or after one of them, to the end."""
    params = {} if after is None else {"after": after}
    path = f"/execution/agent-run/{run_id}/stream"
    with client.stream("GET", path, params=params) as response:
        assert response.status_code == 200, response.read()
        return list(read_events(response))


def _living() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(entry.name), command.decode(errors="replace").strip()
