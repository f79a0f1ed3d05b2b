"""The sockets that the API listens on: taken early, refused in words."""

from __future__ import annotations

import errno
import socket
from typing import Final

from machina.errors import SettingsInvalid

SILENT_PEER_MS: Final = 30_000
"""How long what was sent may stay unacknowledged before the kernel gives a connection up."""
BACKLOG: Final = 4096
"""Connections the kernel holds for us; it takes the smaller of this and its own limit."""


def open_listener(
    host: str, port: int, *, shared: bool = False, listening: bool = True
) -> socket.socket:
    """A socket bound to this address; port 0 takes any free one.

    Args:
        shared: Several processes bind it (SO_REUSEPORT).
        listening: Whether it listens at once. A server's socket listens only when the server is
            ready, so that nobody waits at a process that is still starting.

    Raises:
        SettingsInvalid: the address is taken, not ours or not permitted.
    """
    family, address = _resolve(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        _give_up_silent_peers(listener)
        if listening and not shared:
            listener.listen(BACKLOG)
    except OSError as refused:
        listener.close()
        raise SettingsInvalid(_explain(host, port, refused)) from None
    return listener


def _give_up_silent_peers(listener: socket.socket) -> None:
    """Connections inherit it: a peer that vanished without a word is noticed by its heartbeats."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_PEER_MS)


def free_port(host: str, port: int) -> int:
    """The port itself when nobody listens on it; for 0, one that is free now.

    Raises:
        SettingsInvalid: the address is taken, not ours or not permitted.
    """
    with open_listener(host, port) as listener:
        return int(listener.getsockname()[1])


def make_url(host: str, port: int) -> str:
    """Where a client on this machine reaches an API that listens on this address."""
    if host in ("", "0.0.0.0"):  # noqa: S104  # compared with, not bound
        host = "127.0.0.1"
    if host == "::":
        host = "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as unknown:
        raise SettingsInvalid(
            f"MACHINA_HOST={host}: {unknown.strerror}; name an address of this machine with --host."
        ) from None
    family, _, _, _, address = found[0]
    return family, address


def _explain(host: str, port: int, refused: OSError) -> str:
    if refused.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken; stop what listens there, or choose another port "
            "with --port (MACHINA_PORT)."
        )
    if refused.errno == errno.EACCES:
        return (
            f"Port {port} on {host} may not be used ({refused.strerror}); "
            "choose one above 1023 with --port (MACHINA_PORT)."
        )
    return (
        f"{host}:{port} cannot be listened on ({refused.strerror}); "
        "name an address of this machine with --host (MACHINA_HOST)."
    )
