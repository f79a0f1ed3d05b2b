"""Takes from this process what its script shall not have; nothing of it can be taken back."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

from . import landlock, seccomp

TYPE_CHECKING = False  # typing is slow to load, and every script waits for it
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 1, 3, 4
_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS = 8, 38
_CAPABILITY_VERSION = 0x20080522
_READ_SEARCH = 1 << 2
"""Reads and passes where the owner's rights forbid it. Landlock still says where."""


def confine(plan: Mapping[str, Any]) -> None:
    """Applies a plan of the worker: `limits`, `uid`, `landlock`, `seccomp`, `directory`.

    Raises:
        OSError: a part of it cannot be had here; the script must then not run.
    """
    os.umask(0o077)
    others = _count_tasks() if plan["count_others"] else 0
    if plan["uid"] is not None:
        _become(plan["uid"], keep_search=plan["keep_search"])
    elif plan["drop_capabilities"]:
        _keep_capabilities(0)
    os.chdir(plan["directory"])
    _limit(plan["limits"], others)
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if plan["hide_memory"]:
        set_dumpable(0)
    if plan["landlock"] is not None:
        landlock.restrict(**plan["landlock"])
    if plan["seccomp"] is not None:
        seccomp.install(**plan["seccomp"])


def _limit(limits: Mapping[str, int], others: int) -> None:
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_AS: limits["memory_bytes"],
        # The kernel counts the processes of a user; those that were there are not the script's.
        resource.RLIMIT_NPROC: limits["processes"] + others,
    }
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        # Past the soft limit of time comes a signal that says why, a second later the end.
        highest = value + 1 if kind == resource.RLIMIT_CPU else value
        highest = highest if hard == resource.RLIM_INFINITY else min(highest, hard)
        resource.setrlimit(kind, (min(value, highest), highest))


def _count_tasks() -> int:
    """The tasks of this user, ours included; 0 where the system does not tell."""
    count, uid = 0, os.getuid()
    try:
        names = os.listdir("/proc")
    except OSError:
        return 0
    for name in names:
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:  # it has ended meanwhile
            continue
    return count


def _become(uid: int, *, keep_search: bool) -> None:
    """Another user, without any group of the old one; capabilities go with the change."""
    if keep_search:
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if keep_search:
        _keep_capabilities(_READ_SEARCH)


def _keep_capabilities(kept: int) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    sets = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, sets) != 0:
        _fail("capset")


def dumpable() -> int:
    """Whether others of the same user may read the memory of this process: 1, or 0."""
    return _prctl(_PR_GET_DUMPABLE, 0)


def set_dumpable(value: int) -> None:
    """Lets others of the same user read the memory of this process, or not."""
    _prctl(_PR_SET_DUMPABLE, value)


def _prctl(option: int, value: int) -> int:
    arguments = [ctypes.c_ulong(n) for n in (value, 0, 0, 0)]
    result = ctypes.CDLL(None, use_errno=True).prctl(option, *arguments)
    if result < 0:
        _fail(f"prctl {option}")
    return int(result)


def _fail(what: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, f"{what}: {os.strerror(code)}")
