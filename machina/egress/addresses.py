"""Which addresses belong to the public internet, and which forms hide one that does not."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA_NAMES: Final = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.azure.com",
        "metadata.tencentyun.com",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
"""Names under which clouds hand out the credentials of the machine."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_METADATA: Final = _networks(
    "169.254.169.254/32",
    "169.254.170.2/32",  # tasks of AWS ECS
    "169.254.170.23/32",  # pods of AWS EKS
    "fd00:ec2::254/128",
    "fd00:ec2::23/128",
    "fd20:ce::254/128",  # Google
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure: a public address that is the host of the machine
    "192.0.0.192/32",  # Oracle
)
_PRIVATE: Final = _networks(
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"
)
_DENIED: Final = (
    *((network, "a loopback address") for network in _networks("127.0.0.0/8", "::1/128")),
    *(
        (network, "an address of a private network")
        for network in _networks(
            "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"
        )
    ),
    *((network, "a link-local address") for network in _networks("169.254.0.0/16", "fe80::/10")),
    *((network, "a shared address (CGNAT)") for network in _networks("100.64.0.0/10")),
    *((network, "a multicast address") for network in _networks("224.0.0.0/4", "ff00::/8")),
    *(
        (network, "an IPv6 form of an IPv4 address")
        for network in _networks(
            "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16",
            "2001::/32", "::/96",
        )
    ),
)  # fmt: skip


def why_not_public(address: Address) -> str | None:
    """What kind of address it is when it is not of the public internet, else None.

    The IPv6 forms that carry an IPv4 address (mapped, translated, NAT64, 6to4, Teredo,
    compatible) count as not public whatever they carry.
    """
    if is_metadata(address):
        return "an address of cloud metadata"
    for network, kind in _DENIED:
        if address in network:
            return kind
    if not address.is_global or address.is_unspecified or address.is_reserved:
        return "a reserved address"
    if isinstance(address, ipaddress.IPv6Address) and _is_isatap(address):
        return "an IPv6 form of an IPv4 address"
    return None


def is_metadata(address: Address) -> bool:
    """Whether a cloud hands out credentials there."""
    return is_in(address, _METADATA)


def is_private(address: Address) -> bool:
    """Whether it is a loopback address or one of a private network, metadata excepted."""
    return is_in(address, _PRIVATE) and not is_metadata(address)


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of the networks holds the address."""
    return any(address in network for network in networks)


def _is_isatap(address: ipaddress.IPv6Address) -> bool:
    """RFC 5214: the interface part is `0000:5efe` or `0200:5efe` and an IPv4 address."""
    return (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE
