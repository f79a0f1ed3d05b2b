"""A server that speaks MongoDB's protocol, as a child of the tests that they may maltreat.

It is `nx-27017`, a development dependency: no package index has a mongod.
`MACHINA_TEST_MONGO_URL` names a real one, which the store's contract is then checked against too.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from machina.store.indexes import COLLECTIONS
from tests.services import ServiceMissing

REAL_URL: Final = os.environ.get("MACHINA_TEST_MONGO_URL")
START_SECONDS: Final = 8.0
_PR_SET_PDEATHSIG: Final = 1


class MongoServer:
    """One nx-27017 child with a directory and a port of its own; dies with the test process."""

    def __init__(self) -> None:
        if find_spec("nx_27017") is None:
            raise ServiceMissing("nx-27017 is missing; run `uv sync`.")
        self.directory = Path(tempfile.mkdtemp(prefix="mm", dir="/tmp"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"mongodb://127.0.0.1:{self.port}/machina"

    def start(self) -> None:
        """Starts the child and waits until it answers."""
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        command = [
            sys.executable, "-m", "nx_27017.nx_27017", "--port", str(self.port),
            "--db", str(self.directory / "db"), "--log-file", str(self.directory / "log"),
            "--pid-file", str(self.directory / "pid"),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServiceMissing(f"nx-27017 did not start: {' '.join(command)}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: what the kernel has of the data survives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP for a while: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kills the child and removes its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.2):
                pass
            with closing(_client(self.url, 500)) as client:
                client.admin.command("ping")
        except (OSError, PyMongoError):
            return False
        return True


@cache
def shared_server() -> MongoServer:
    """The server of this test process, started when first asked for. Not to be maltreated."""
    server = MongoServer()
    atexit.register(server.close)
    return server


@cache
def real_url() -> str:
    """The real MongoDB's address, with a database of this test process's own in it."""
    assert REAL_URL is not None
    parts = urlsplit(REAL_URL)
    options = dict(parse_qsl(parts.query))
    if "@" in parts.netloc and parts.path.strip("/"):
        options.setdefault("authSource", parts.path.strip("/"))
    url = parts._replace(path=f"/machina_test_{os.getpid()}", query=urlencode(options)).geturl()
    atexit.register(drop_database, url)
    return url


def empty(url: str) -> str:
    """The same address, whose database now holds nothing."""
    database = _lasting_client(url).get_default_database()
    for name in COLLECTIONS:  # the test server knows no databases, only collections
        database.drop_collection(name)
    return url


def drop_database(url: str) -> None:
    """Removes the database that an address names."""
    with closing(_client(url, 5_000)) as client:
        client.drop_database(client.get_default_database().name)


@cache
def _lasting_client(url: str) -> MongoClient[dict[str, Any]]:
    client = _client(url, 5_000)
    atexit.register(client.close)
    return client


def _client(url: str, milliseconds: int) -> MongoClient[dict[str, Any]]:
    return MongoClient(
        url, serverSelectionTimeoutMS=milliseconds, socketTimeoutMS=5_000, tz_aware=True
    )


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
