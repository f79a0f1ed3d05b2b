"""Becomes a redis-server that has its data to itself and ends when `dev` does.

A program of its own, run by its path with nothing but the standard library, so that it costs a few
hundredths of a second: `redis_exec.py LOCK_FILE PARENT_PID COMMAND…`. It takes the lock, which the
descriptor carries into the redis-server and into every process that one forks: as long as any of
them can write to the append-only file, nobody else may.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys

HELD = 3
PR_SET_PDEATHSIG = 1


def main(lock_file: str, parent: int, command: list[str]) -> None:
    """Replaces this process by the command; exits with `HELD` when the lock is taken."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it ended before we asked
            sys.exit(0)
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(HELD)
    os.set_inheritable(descriptor, True)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    os.execv(command[0], command)  # noqa: S606  # the whole point: no shell, no second process


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
