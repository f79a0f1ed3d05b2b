"""Run directories: one per run, shared by its scripts, counted, and removed when the run is over.

A directory outlives the process that made it, because another process of the host may go on with
the run. What nobody alive holds and nobody touched for a while is removed at start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from machina.connectors.scripts.isolation import fresh_uid, is_fresh_uid
from machina.settings import Settings

log = structlog.get_logger(__name__)

STALE_SECONDS: Final = 3_600.0
"""Age from which a directory without a living owner is removed."""
_RUN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_ENTRIES: Final = 100_000


class RunDirectories:
    """The directories of the runs that this process executes. All but `path` block."""

    def __init__(self, settings: Settings, *, other_uid: bool = False) -> None:
        self._settings = settings
        # Containers that share the place may have the same process number.
        self.token = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._base: Path | None = None
        self._lock: int | None = None
        self._mine: set[str] = set()
        self._claiming = threading.Lock()
        self.other_uid = other_uid

    @property
    def base(self) -> Path:
        """Where all of it lies. Only between `open` and `close`."""
        if self._base is None:
            raise RuntimeError("the run directories are not open")
        return self._base

    def path(self, run_id: str) -> Path:
        """The directory of a run, whether or not it is there yet.

        Raises:
            ValueError: the id could not be the name of a directory.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError(f"{run_id[:80]!r} is no run id")
        return self.base / "runs" / run_id

    def open(self) -> None:
        """Makes the place, takes our lock in it, and removes what is stale."""
        base = self._settings.work_dir
        if base is None and self._settings.data_dir is not None:
            base = self._settings.data_dir / "work"
        self._base = (base or _temporary_place()).absolute()
        for part in (self._base, self._base / "runs", self._base / "owners"):
            part.mkdir(parents=True, exist_ok=True)
        for part in (self._base, self._base / "runs"):
            # Others may pass, not look: the user of a run must reach its directory.
            part.chmod(0o711 if os.geteuid() == 0 else 0o700)
        (self._base / "owners").chmod(0o700)
        self._lock = os.open(self._owner(self.token), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._remove_stale()

    def close(self) -> None:
        """Lets go of our lock: what is left may be taken over, or be removed once it is stale."""
        if self._lock is not None:
            with contextlib.suppress(FileNotFoundError):
                self._owner(self.token).unlink()
            os.close(self._lock)
            self._lock = None
        self._base = None

    def claim(self, run_id: str) -> tuple[Path, int | None]:
        """Makes the directory of a run, or takes it over, with the user number its scripts have."""
        with self._claiming:  # two children of one run must get the same user
            return self._claim(run_id)

    def _claim(self, run_id: str) -> tuple[Path, int | None]:
        directory = self.path(run_id)
        directory.mkdir(mode=0o700, exist_ok=True)
        if run_id not in self._mine:
            self._note(run_id).write_text(self.token)
            self._mine.add(run_id)
        uid = directory.lstat().st_uid
        if not self.other_uid:
            if uid != os.geteuid():
                _give(directory, os.geteuid())
            return directory, None
        if not is_fresh_uid(uid):
            uid = fresh_uid()
            _give(directory, uid)
        return directory, uid

    def forget(self, run_id: str) -> None:
        """Removes the directory of a run."""
        self._mine.discard(run_id)
        remove(self.path(run_id))
        with contextlib.suppress(FileNotFoundError):
            self._note(run_id).unlink()

    def _owner(self, name: str) -> Path:
        return self.base / "owners" / f"{name}.lock"

    def _note(self, run_id: str) -> Path:
        return self.base / "owners" / f"{run_id}.run"

    def _remove_stale(self) -> None:
        now = time.time()
        for lock in (self.base / "owners").glob("*.lock"):
            with contextlib.suppress(FileNotFoundError):
                if now - lock.stat().st_mtime > STALE_SECONDS and not _is_held(lock):
                    lock.unlink()
        for directory in (self.base / "runs").iterdir():
            try:
                if now - directory.lstat().st_mtime < STALE_SECONDS:
                    continue
                note = self._note(directory.name)
                owner = note.read_text() if note.exists() else "nobody"
                if _is_held(self._owner(Path(owner).name)):
                    continue
                remove(directory)
                note.unlink(missing_ok=True)
                log.info("script.directory_removed", run_id=directory.name)
            except OSError as error:  # another process may be at it
                log.warning("script.directory_kept", run_id=directory.name, error=str(error))


def _give(directory: Path, uid: int) -> None:
    """Gives a tree to a user: the run goes on under another isolation than it began with."""
    os.chown(directory, uid, uid, follow_symlinks=False)
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:  # never a file of others
                os.chown(path, uid, uid, follow_symlinks=False)


def _temporary_place() -> Path:
    """A place that all our processes of this host share; one of our own where it is not ours."""
    shared = Path(tempfile.gettempdir()) / f"machina-work-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        shared.mkdir(mode=0o700)
    status = shared.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        return shared
    log.warning("script.directory_taken", path=str(shared))
    return Path(tempfile.mkdtemp(prefix="machina-work-"))


def _is_held(lock: Path) -> bool:
    """Whether a living process holds this lock."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove(directory: Path) -> None:
    """Removes a tree whatever rights a script gave its parts; links are not followed."""

    def open_up(function: Callable[[str], object], path: str, _: object) -> None:
        parent = os.path.dirname(path)
        with contextlib.suppress(OSError):
            for part in (parent, path):
                if os.path.isdir(part) and not os.path.islink(part):
                    os.chmod(part, 0o700)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)

    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory, onerror=open_up)


def size_of(directory: Path, *, enough: int) -> int:
    """Bytes below a directory as the file system counts them, up to about `enough`. Blocking."""
    total, entries, pending = 0, 0, [str(directory)]
    while pending and total <= enough:
        try:
            found = os.scandir(pending.pop())
        except PermissionError:  # the script closed it: what cannot be counted counts in full
            return enough + 1
        except OSError:  # gone meanwhile
            continue
        with found:
            for entry in found:
                entries += 1
                if entries > _MAX_ENTRIES:  # empty files fill a disk as well
                    return enough + 1
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                total += max(status.st_blocks * 512, 512)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return total
