"""What may be reached: the public internet, and what the operator names beside it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from machina.egress.addresses import (
    METADATA_NAMES,
    Address,
    is_metadata,
    is_private,
    why_not_public,
)
from machina.errors import EgressFailed
from machina.settings import Settings
from machina.settings.egress import AllowedPlace, read_place

REMEDY = "the operator can allow it with MACHINA_EGRESS_ALLOW"


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Decides about hosts, ports and addresses. Without entries only the public internet is open.

    `ports`: the only ones that may be called; empty means all.
    """

    allowed: Sequence[AllowedPlace] = ()
    ports: frozenset[int] = frozenset()

    @classmethod
    def from_settings(cls, settings: Settings) -> EgressPolicy:
        """The operator's policy. `dev` opens loopback and private networks unless told."""
        entries = settings.egress_allow
        if entries is None:
            entries = ("private",) if settings.environment == "dev" else ()
        return cls.of(*entries, ports=settings.egress_ports)

    @classmethod
    def of(cls, *entries: str, ports: Iterable[int] = ()) -> EgressPolicy:
        """A policy with these entries, as `MACHINA_EGRESS_ALLOW` has them.

        Raises:
            ValueError: an entry cannot be read.
        """
        return cls(tuple(read_place(entry) for entry in entries), frozenset(ports))

    def check_host(self, host: str, port: int) -> Address | None:
        """Refuses ports and names that need no look-up to be refused. Gives a host's address
        when it is one, checked; None for a name, whose addresses are still to be checked.

        Raises:
            EgressFailed: `egress_refused`.
        """
        address = _literal(host)
        if address is not None:
            self.check_address(address, host, port)
        elif not self._names(host, port):
            if host in METADATA_NAMES:
                raise _refused(f"{host} is a name of cloud metadata")
            self._check_port(host, port)
        return address

    def check_address(self, address: Address, host: str, port: int) -> None:
        """Refuses an address that `host` stands for.

        Raises:
            EgressFailed: `egress_refused`.
        """
        if self._names(host, port) or self._holds(address, port):
            return
        self._check_port(host, port)
        kind = why_not_public(address)
        if kind is None or (self._has("any") and not is_metadata(address)):
            return
        if self._has("private") and is_private(address):
            return
        # The address of a name says something about the inside of a network: it is not told.
        shown = f"{host} is" if _literal(host) is not None else f"{host} stands for"
        raise _refused(f"{shown} {kind}")

    def _check_port(self, host: str, port: int) -> None:
        if self.ports and port not in self.ports:
            raise _refused(f"port {port} of {host} is not among MACHINA_EGRESS_PORTS")

    def _names(self, host: str, port: int) -> bool:
        return any(p.host == host and p.port in (None, port) for p in self.allowed)

    def _holds(self, address: Address, port: int) -> bool:
        return any(
            p.network is not None and address in p.network and p.port in (None, port)
            for p in self.allowed
        )

    def _has(self, word: str) -> bool:
        return any(p.word == word for p in self.allowed)


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refused(what: str) -> EgressFailed:
    return EgressFailed(f"{what}, which may not be called; {REMEDY}.", code="egress_refused")
