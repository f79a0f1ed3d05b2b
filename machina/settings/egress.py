"""Which addresses the server may call on behalf of templates, and how much it takes from them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WORDS: Final = ("private", "any", "none")
"""`private`: loopback and private networks. `any`: no check of addresses. `none`: nothing more."""
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


@dataclass(frozen=True, slots=True)
class AllowedPlace:
    """One entry of `MACHINA_EGRESS_ALLOW`: a word, a host or a network; `port` None means all."""

    word: str | None = None
    host: str | None = None
    network: Network | None = None
    port: int | None = None


def read_place(text: str) -> AllowedPlace:
    """An entry: `private`, `any`, `none`, a host, an address, either with a port, or a CIDR.

    Raises:
        ValueError: it is none of these.
    """
    entry = text.strip().lower().rstrip(".")
    if entry in WORDS:
        return AllowedPlace(word=entry)
    network = _network(entry)
    if network is not None:
        return AllowedPlace(network=network)
    host, colon, digits = entry.rpartition(":")
    port = None
    if colon:
        if not digits.isdecimal() or not 1 <= int(digits) <= 65_535:
            raise ValueError(f"'{text}': what follows the colon is no port")
        port = int(digits)
    else:
        host = entry
    network = _network(host.removeprefix("[").removesuffix("]"))
    if network is not None:
        return AllowedPlace(network=network, port=port)
    if not _HOST.fullmatch(host) or host.rpartition(".")[2].isdecimal():
        raise ValueError(
            f"'{text}' is no host, host:port, address or CIDR, and none of {', '.join(WORDS)}"
        )
    return AllowedPlace(host=host, port=port)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


class EgressSettings(BaseModel):
    """Calls to the outside"""

    egress_allow: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        validation_alias="MACHINA_EGRESS_ALLOW",
        examples=["api.internal:8080,10.20.0.0/16"],
        description="Hosts, host:port pairs, addresses and CIDRs that connectors may reach "
        "although they are not public, with commas between. The word `private` stands for "
        "loopback and private networks, `any` for every address but those of cloud metadata, "
        "`none` for nothing. Unset: `none`; in `dev` it is `private`.",
    )
    egress_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        (),
        validation_alias="MACHINA_EGRESS_PORTS",
        examples=["80,443"],
        description="The only ports that connectors may call, with commas between, beside those "
        "named in `MACHINA_EGRESS_ALLOW`. Unset: all.",
    )
    egress_total_seconds: float = Field(
        120,
        gt=0,
        validation_alias="MACHINA_EGRESS_TOTAL_SECONDS",
        description="Longest call of a REST connector, in all.",
    )
    egress_idle_seconds: float = Field(
        60,
        gt=0,
        validation_alias="MACHINA_EGRESS_IDLE_SECONDS",
        description="Longest silence of a server that a REST connector called.",
    )
    egress_max_bytes: int = Field(
        10 * 1024 * 1024,
        ge=1024,
        validation_alias="MACHINA_EGRESS_MAX_BYTES",
        description="Largest answer a REST connector takes, in bytes after decompression.",
    )

    @field_validator("egress_allow", "egress_ports", mode="before")
    @classmethod
    def _split_egress(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part for item in value.split(",") if (part := item.strip()))

    @field_validator("egress_allow")
    @classmethod
    def _readable_egress(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for entry in value or ():
            read_place(entry)
        return value

    @field_validator("egress_ports")
    @classmethod
    def _ports_exist(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for port in value:
            if not 1 <= port <= 65_535:
                raise ValueError(f"{port} is no port")
        return value
