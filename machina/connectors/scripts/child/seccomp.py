"""A filter of system calls, assembled by hand: what no script needs, the kernel refuses.

Refused calls answer `EPERM`, except `clone3`, which answers `ENOSYS`: the C library then takes
`clone`, whose flags a filter can read. Sources: linux/seccomp.h, linux/bpf_common.h, the system
call tables of x86-64 and of arm64.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "arm64": 0xC00000B7}
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _GREATER, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
_NAMESPACES = 0x7E020000
"""The flags of `clone` that make namespaces."""
_FAST_OPEN = 0x20000000
"""Connects within a `send`, past the checks of `connect`."""
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

_NEVER: dict[str, tuple[int, int]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "personality": (135, 92),
}
_SESSIONS = {"setsid": (112, 157), "setpgid": (109, 154)}
"""Who leaves the process group would outlive its end."""
_SOCKET, _CLONE, _CLONE3 = (41, 198), (56, 220), (435, 435)
_SENDS = {"sendto": ((44, 206), 3), "sendmsg": ((46, 211), 2), "sendmmsg": ((307, 269), 3)}
_TCP = (0, 6)
_KINDS = 0xF


def is_known_here() -> bool:
    """Whether this kernel and this machine have what `install` needs."""
    return hasattr(os, "pidfd_open") and os.uname().machine in _ARCHITECTURES


def install(*, network: str, sessions: bool) -> None:
    """Installs the filter for this process and all it starts. Needs `no_new_privs`.

    Args:
        network: `on`; `tcp`, which leaves TCP only; `off`, which leaves no socket.
        sessions: Whether a process may leave its group.

    Raises:
        OSError: the kernel refuses, or this machine is of an unknown kind.
    """
    if os.uname().machine not in _ARCHITECTURES:
        raise OSError(f"there is no filter of system calls for {os.uname().machine}")
    program = b"".join(_program(network, sessions))
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    unused = ctypes.c_ulong(0)
    mode = ctypes.c_ulong(_MODE_FILTER)
    if libc.prctl(_PR_SET_SECCOMP, mode, ctypes.c_char_p(header), unused, unused) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")


def _program(network: str, sessions: bool) -> list[bytes]:
    machine = os.uname().machine
    column = 0 if machine == "x86_64" else 1
    refused = dict(_NEVER) if sessions else {**_NEVER, **_SESSIONS}
    lines = [
        _line(_LOAD, _ARCHITECTURE),
        _line(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _answer(_EPERM),
        _line(_LOAD, _NUMBER),
        _line(_GREATER, _X32, 0, 1),
        _answer(_EPERM),
    ]
    for numbers in refused.values():
        lines += [_line(_EQUAL, numbers[column], 0, 1), _answer(_EPERM)]
    lines += [_line(_EQUAL, _CLONE3[column], 0, 1), _answer(_ENOSYS)]
    lines += _when(_CLONE[column], [_argument(0), *_refuse_bits(_NAMESPACES)])
    lines += _when(_SOCKET[column], _socket_rules(network))
    if network == "tcp":
        for numbers, flags in _SENDS.values():
            lines += _when(numbers[column], [_argument(flags), *_refuse_bits(_FAST_OPEN)])
    return [*lines, _line(_RETURN, _ALLOW)]


def _socket_rules(network: str) -> list[bytes]:
    """What `socket` may be called with: UNIX sockets by name lead to services of the machine."""
    if network == "off":
        return [_answer(_EPERM)]
    families = [int(socket.AF_INET), int(socket.AF_INET6)]
    if network == "on":  # the resolver of the C library asks which addresses there are
        families.append(int(getattr(socket, "AF_NETLINK", 16)))
    rules = [_argument(0), *_only(families)]
    if network == "tcp":
        rules += [_argument(1), _line(_AND, _KINDS), *_only([int(socket.SOCK_STREAM)])]
        rules += [_argument(2), *_only(list(_TCP))]
    return rules


def _only(values: list[int]) -> list[bytes]:
    """Goes on when the loaded value is one of these, else refuses."""
    checks = [_line(_EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)]
    return [*checks, _answer(_EPERM)]


def _refuse_bits(bits: int) -> list[bytes]:
    return [_line(_ANY_BIT, bits, 0, 1), _answer(_EPERM)]


def _when(number: int, rules: list[bytes]) -> list[bytes]:
    """Applies the rules to one system call and ends there; others pass by."""
    body = [*rules, _line(_RETURN, _ALLOW)]
    return [_line(_EQUAL, number, 0, len(body)), *body]


def _argument(index: int) -> bytes:
    return _line(_LOAD, _ARGUMENTS + 8 * index)


def _answer(code: int) -> bytes:
    return _line(_RETURN, _REFUSE | code)


def _line(operation: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, then, otherwise, value)
