"""Landlock over its system calls: which files and TCP ports this process may still reach.

Source: the kernel's userspace API, docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

TYPE_CHECKING = False  # typing is slow to load, and every script waits for it
if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_EXECUTE, _WRITE, _READ, _READ_DIR = 1, 2, 4, 8
_CONNECT_TCP, _BIND_TCP = 2, 1
_SCOPES = 0b11
"""Abstract UNIX sockets and signals: neither crosses the border outwards."""
_FILE_RIGHTS = _EXECUTE | _WRITE | _READ | 1 << 14 | 1 << 15
"""What a rule on a single file may name: also truncation and device commands."""
_BITS_BY_ABI = (0, 13, 14, 15, 15, 16)
"""How many rights over files each version of the interface knows."""
_SPECIAL_FILES = 1 << 6 | 1 << 11
"""Character and block devices: never made, not even where all else is allowed."""


def abi() -> int:
    """The version of the kernel's interface; 0 where there is none."""
    version = _libc().syscall(_CREATE, None, 0, _VERSION_FLAG)
    return max(0, int(version))


def restrict(
    *, read: Iterable[str] | None, write: Iterable[str] = (), ports: Iterable[int] | None = None
) -> None:
    """Leaves only these paths, and all below them, and these TCP ports to connect to.

    `read` None leaves files alone, `ports` None leaves TCP alone. Paths that do not exist are
    passed over. It cannot be taken back. Needs `no_new_privs`.

    Raises:
        OSError: the kernel does not have it, or not for TCP.
    """
    version = abi()
    if version == 0:
        raise OSError("this kernel has no Landlock")
    if ports is not None and version < 4:
        raise OSError(f"Landlock of this kernel (interface {version}) does not cover TCP")
    bits = _BITS_BY_ABI[min(version, len(_BITS_BY_ABI) - 1)]
    everything = (1 << bits) - 1 if read is not None else 0
    network = _CONNECT_TCP if ports is not None else 0
    scopes = _SCOPES if version >= 6 else 0
    attributes = struct.pack("=QQQ", everything, network, scopes)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(_CREATE, attributes, size, 0)
    try:
        for path in read or ():
            _allow_path(ruleset, path, _EXECUTE | _READ | _READ_DIR)
        for path in write:
            _allow_path(ruleset, path, everything & ~_SPECIAL_FILES)
        for port in ports or ():
            _call(_ADD, ruleset, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        _call(_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes) -> int:
    converted = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    result = _libc().syscall(ctypes.c_long(number), *converted)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return int(result)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
