"""The data directory of `dev`: made, locked, and the small files by which others find their way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from machina.errors import SettingsInvalid
from machina.vault import make_key

PATIENCE_SECONDS: Final = 3.0
"""How long a start waits for a lock: a Redis whose `dev` was killed needs a moment to end."""
POLL_SECONDS: Final = 0.05


class DataDirectory:
    """A directory that holds everything of one `dev`. All methods block briefly."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.redis = path / "redis"
        self.admin_key = path / "admin.key"
        self.vault_key = path / "vault.key"
        self.redis_lock = self.redis / "lock"
        self._lock = path / "lock"
        self._redis_url = path / "redis.url"

    def create(self) -> None:
        """Makes the directory, for nobody else to enter, and its parents where they are missing.

        Raises:
            SettingsInvalid: it cannot be made or written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
        except OSError as failed:
            raise SettingsInvalid(
                f"The data directory {self.path} cannot be used ({failed.strerror}); "
                "name another with --data-dir."
            ) from None

    def lock(self, patience_seconds: float = PATIENCE_SECONDS) -> int:
        """Takes the directory for this process.

        Returns:
            The descriptor to keep open for as long as the directory is in use.

        Raises:
            SettingsInvalid: another `dev` has it; the message says which process that is.
        """
        return _take(
            self._lock,
            patience_seconds,
            f"The data directory {self.path} is in use by machina-server dev, process {{pid}}; "
            "stop that one, or name another directory with --data-dir.",
        )

    def await_redis_end(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Waits for a Redis whose `dev` was killed: two of them would write to one file.

        Raises:
            SettingsInvalid: it does not end; the message says which process it is.
        """
        os.close(
            _take(
                self.redis_lock,
                patience_seconds,
                f"The Redis of an earlier start, process {{pid}}, still runs on {self.path}; "
                "end it, then start again.",
            )
        )

    def read_redis_url(self) -> str | None:
        """The URL of the Redis that a running `dev` offers here, if any was left."""
        return _read_line(self._redis_url)

    def write_redis_url(self, url: str) -> None:
        """Tells `api --data-dir` and `worker --data-dir` where the Redis of this directory is."""
        write_private(self._redis_url, url)

    def forget_redis_url(self) -> None:
        """Undoes `write_redis_url`; the mark of a clean stop."""
        self._redis_url.unlink(missing_ok=True)

    def read_admin_key(self) -> str | None:
        """The admin key of an earlier start."""
        return _read_line(self.admin_key)

    def read_vault_key(self) -> str | None:
        """The key of the secrets in this directory, if `dev` ever made one."""
        return _read_line(self.vault_key)

    def keep_vault_key(self) -> str:
        """The key of the secrets in this directory, made now if there is none."""
        key = self.read_vault_key()
        if key is None:
            key = make_key()
            write_private(self.vault_key, key)
        self.vault_key.chmod(0o600)
        return key


def write_private(path: Path, text: str) -> None:
    """Writes one line that only its owner may read; a reader never sees half of it."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with contextlib.closing(os.fdopen(descriptor, "w")) as file:
        file.write(text + "\n")
    draft.replace(path)


def _read_line(path: Path) -> str | None:
    """What a small file says; None when it is not there or empty."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _take(lock_file: Path, patience_seconds: float, refusal: str) -> int:
    """Locks a file and leaves our pid in it; `{pid}` in the refusal is who holds it."""
    lock_file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise SettingsInvalid(refusal.format(pid=holder or "unknown")) from None
            time.sleep(POLL_SECONDS)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor
