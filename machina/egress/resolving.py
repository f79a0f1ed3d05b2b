"""Looks names up without blocking the loop, and lets only allowed addresses through."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from machina.egress.policy import EgressPolicy

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name, as texts; raises OSError when it has none."""
MAX_ADDRESSES: Final = 32


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses the system's resolver knows. Raises OSError when there is none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))[:MAX_ADDRESSES]


class GuardedResolver(AbstractResolver):
    """The resolver of the pool: what it returns was checked, and is what gets connected to.

    Nobody resolves the name a second time, so a name that changes its mind gains nothing.
    """

    def __init__(self, policy: EgressPolicy, look_up: LookUp = look_up) -> None:
        self._policy = policy
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Every address of the name.

        Raises:
            EgressFailed: `egress_refused`, one of them may not be reached.
            OSError: the name has none.
        """
        name = host.lower().rstrip(".")
        addresses = [ipaddress.ip_address(text) for text in await self._look_up(name, port)]
        if not addresses:
            raise OSError(f"{name} has no address")
        for address in addresses:
            self._policy.check_address(address, name, port)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
            if family in (socket.AF_UNSPEC, 0)
            or (family == socket.AF_INET) == (address.version == 4)
        ]

    async def close(self) -> None:
        """Nothing is open."""
