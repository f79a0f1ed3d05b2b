"""How a script is shut in: the ways this machine may offer, from the strictest to the loosest."""

from __future__ import annotations

import functools
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from machina.connectors.scripts import bubblewrap
from machina.connectors.scripts.child import confine, landlock, seccomp
from machina.connectors.scripts.interpreter import CHILD, Interpreter
from machina.settings import Settings

NAMES: Final = {3: "bubblewrap", 2: "landlock", 1: "limits only"}
SYSTEM: Final = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ssl", "/etc/pki",
    "/etc/ca-certificates", "/etc/ca-certificates.conf", "/etc/resolv.conf", "/etc/hosts",
    "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/localtime", "/etc/timezone",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/mime.types", "/etc/fonts",
    "/etc/services", "/etc/protocols", "/etc/alternatives",
)  # fmt: skip
"""What of the system a script may read. No `/etc/passwd`, no `/proc`, no `/var`, no `/home`."""
_HARMLESS: Final = ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")
GUARDING_ABI: Final = 4
"""From this version of its interface on, Landlock covers TCP."""
_UIDS: Final = (1_879_048_192, 1 << 24)
"""First of the numbers that nobody's account has, and how many we take."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """One way to shut a script in. `level` 3 is bubblewrap, 2 Landlock, 1 limits alone."""

    level: int
    other_uid: bool = False
    """Whether each run gets a user of its own; only root can do that."""
    keep_search: bool = False
    """Whether it still reads an interpreter below a directory of root's alone (level 2)."""
    own_user_space: bool = False
    """Whether bubblewrap makes a user namespace (level 3); it must where we are not root."""
    filtered: bool = True
    """Whether the kernel filters system calls."""
    network: bool = True
    """Whether there is a way out at all."""
    gate_port: int | None = None
    """The only TCP port that may be connected to, and no other socket; None: every one."""

    @property
    def name(self) -> str:
        """What this level is called."""
        return NAMES[self.level]

    def command(self, interpreter: Interpreter, directory: Path) -> list[str]:
        """What starts a child for a run with this directory."""
        if self.level < 3:
            return list(interpreter.command)
        return bubblewrap.wrap(
            interpreter.command,
            readable=[*SYSTEM, *map(str, interpreter.directories), str(CHILD)],
            directory=directory,
            own_user_space=self.own_user_space,
            keep_setuid=self.other_uid,
            network=self.network,
        )

    def plan(
        self, settings: Settings, interpreter: Interpreter, directory: Path, uid: int | None
    ) -> dict[str, Any]:
        """What the child is told to do to itself."""
        return {
            "directory": str(directory),
            "uid": uid,
            "keep_search": self.keep_search,
            "drop_capabilities": sys.platform == "linux" and os.geteuid() == 0,
            "count_others": uid is None and self.level < 3,
            "limits": {
                "cpu_seconds": settings.script_cpu_seconds,
                "memory_bytes": settings.script_memory_bytes,
                "file_bytes": settings.script_file_bytes,
                "open_files": settings.script_open_files,
                "processes": settings.script_processes,
            },
            "hide_memory": sys.platform == "linux" and self.level == 1,
            "landlock": self._landlock(interpreter, directory),
            "seccomp": self._seccomp(),
            "reply_bytes": settings.script_reply_bytes,
        }

    def _landlock(self, interpreter: Interpreter, directory: Path) -> dict[str, Any] | None:
        ports = None if self.gate_port is None else [self.gate_port]
        if self.level == 2:
            readable = [*SYSTEM, *_HARMLESS, *map(str, interpreter.directories)]
            return {"read": readable, "write": [str(directory), *_DEVICES], "ports": ports}
        return None if ports is None else {"read": None, "ports": ports}

    def _seccomp(self) -> dict[str, Any] | None:
        if not self.filtered:
            return None
        network = "off" if not self.network else "on" if self.gate_port is None else "tcp"
        return {"network": network, "sessions": self.level == 3}


def candidates(level: int, *, network: bool, gate_port: int | None) -> list[Isolation]:
    """The ways to have a level, the best first; each must still be tried."""
    ways = [Isolation(level, own_user_space=level == 3)]
    if level == 1:
        filtered = sys.platform == "linux" and seccomp.is_known_here()
        ways = [Isolation(1, filtered=filtered), Isolation(1, filtered=False)]
    if os.geteuid() == 0:
        first = Isolation(level, other_uid=True)
        # An interpreter below a directory of root's alone is read with a capability for reading;
        # Landlock says what it may be used for.
        search = [replace(first, keep_search=True)] if level == 2 else []
        ways = [first, *search, *ways]
    if level == 1 or sys.platform != "linux" or landlock.abi() < GUARDING_ABI:
        gate_port = None
    return [replace(way, network=network, gate_port=gate_port) for way in ways]


def what_is_missing(level: int) -> str | None:
    """What this machine visibly lacks for a level; None when it is worth a try."""
    if level == 1:
        return None
    if sys.platform != "linux":
        return f"it needs Linux, this is {sys.platform}"
    if not seccomp.is_known_here():
        return "it needs a kernel of 5.3 or newer on x86-64 or arm64"
    if level == 3 and bubblewrap.find() is None:
        return "there is no bwrap; install the package bubblewrap"
    if level == 2 and landlock.abi() == 0:
        return "this kernel has no Landlock (Linux 5.13, switched on)"
    return None


def fresh_uid() -> int:
    """A user number for one run, by chance: no run shares files or process counts with another."""
    first, count = _UIDS
    return first + secrets.randbelow(count)


def is_fresh_uid(uid: int) -> bool:
    """Whether `fresh_uid` can have given this number."""
    first, count = _UIDS
    return first <= uid < first + count


def hide_memory() -> Callable[[], None]:
    """Keeps memory and environment of this process from others of its user; gives the way back.

    Only level 1 needs it: the other levels show scripts no process but their own.
    """
    if sys.platform != "linux":
        return lambda: None
    before = confine.dumpable()
    confine.set_dumpable(0)
    return functools.partial(confine.set_dumpable, before)
