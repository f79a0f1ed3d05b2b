"""Lets Python code connect as if there were no proxy: each connection goes through the worker's.

It guards nothing: the kernel lets this process connect to nowhere else. What does not come by here,
such as libraries in C, finds the proxy in the environment.
"""

from __future__ import annotations

import base64
import errno
import socket

TYPE_CHECKING = False  # typing is slow to load, and every script waits for it
if TYPE_CHECKING:
    from typing import Any

PATIENCE_SECONDS = 30.0
_MAX_HEAD = 16_384
_connect = socket.socket.connect
_look_up = socket.getaddrinfo


def install(port: int, token: str) -> None:
    """From now on, TCP connections of this process are tunnels through this port of loopback."""
    proxy = ("127.0.0.1", port)
    secret = base64.b64encode(f"script:{token}".encode()).decode()

    def connect(self: socket.socket, address: Any) -> None:
        if self.family not in (socket.AF_INET, socket.AF_INET6) or address[:2] == proxy:
            _connect(self, address)
            return
        patience = self.gettimeout()
        # A socket that must not block is asked to, for a moment: it has nothing to do before.
        self.settimeout(patience or PATIENCE_SECONDS)
        try:
            _connect(self, _as_seen_by(self, proxy))
            _ask(self, address, secret)
        finally:
            self.settimeout(patience)

    def connect_ex(self: socket.socket, address: Any) -> int:
        try:
            connect(self, address)
        except OSError as error:
            return error.errno or errno.ECONNREFUSED
        return 0

    socket.socket.connect = connect  # type: ignore[method-assign,assignment]  # on purpose
    socket.socket.connect_ex = connect_ex  # type: ignore[method-assign,assignment]  # on purpose
    socket.getaddrinfo = _resolve


def _as_seen_by(connection: socket.socket, proxy: tuple[str, int]) -> tuple[str, int]:
    if connection.family == socket.AF_INET6:
        return (f"::ffff:{proxy[0]}", proxy[1])
    return proxy


def _resolve(
    host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
) -> list[Any]:
    """What the system knows without asking others; else the name itself, for the proxy to find."""
    try:
        return _look_up(host, port, family, type, proto, flags)
    except socket.gaierror:
        name = host.decode() if isinstance(host, bytes) else host
        numeric = flags & socket.AI_NUMERICHOST
        if not name or numeric or type not in (0, socket.SOCK_STREAM):
            raise
    number = port if isinstance(port, int) else int(port or 0)
    if family == socket.AF_INET6:
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (name, number, 0, 0))]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, number))]


def _ask(connection: socket.socket, address: Any, secret: str) -> None:
    host, port = str(address[0]), int(address[1])
    if not host.isascii():
        host = host.encode("idna").decode()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {secret}"
    connection.sendall(f"{head}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _MAX_HEAD:
        piece = connection.recv(1)
        if not piece:
            break
        answer += piece
    status = answer.split(b" ", 2)[1:2]
    if status == [b"200"]:
        return
    reason = connection.recv(_MAX_HEAD).decode("utf-8", "replace")
    if status == [b"403"]:
        raise PermissionError(errno.EACCES, reason)
    raise ConnectionRefusedError(errno.ECONNREFUSED, reason or f"{target}: no connection")
