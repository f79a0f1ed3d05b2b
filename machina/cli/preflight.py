"""What must be clear before a process starts: which store, which Redis, and may they be open."""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from pydantic import SecretStr

from machina.cli.directory import DataDirectory
from machina.errors import SettingsInvalid
from machina.settings import Settings, load_settings

DEFAULT_DIR: Final = Path(".machina")
"""Where `dev` keeps its data, in the working directory."""

_URL: Final = re.compile(
    r"(?P<scheme>[^:]+)://(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^/?]*)(?P<rest>.*)", re.S
)
_PASSWORD: Final = re.compile(r"[^:]*:.+", re.S)
_AUTH_OPTION: Final = re.compile(r"[?&](password|authMechanism)=", re.I)


def load_store_settings(data_dir: Path | None, **overrides: Any) -> Settings:
    """Settings with exactly one store chosen; `data_dir` is the command line's.

    Raises:
        SettingsInvalid: no store is named in production, or two are.
    """
    settings = _choose_store(load_settings(data_dir=data_dir, **overrides), data_dir is not None)
    if settings.data_dir is not None:
        directory = DataDirectory(settings.data_dir)
        directory.create()
        key = directory.read_vault_key()
        if settings.vault_key is None and key is not None:  # made by `dev`
            return settings.model_copy(update={"vault_key": SecretStr(key)})
    return settings


def _choose_store(settings: Settings, by_option: bool) -> Settings:
    if by_option:  # the command line overrides the environment
        return settings.model_copy(update={"mongodb_url": None})
    if settings.mongodb_url is not None and settings.data_dir is not None:
        raise SettingsInvalid(
            f"MONGODB_URL and MACHINA_DATA_DIR={settings.data_dir} each name a store; unset one."
        )
    if settings.mongodb_url is None and settings.data_dir is None:
        if settings.environment == "production":
            raise SettingsInvalid(
                "MONGODB_URL is not set: name the MongoDB of this deployment, or choose the "
                f"embedded store with --data-dir DIR (that of `machina-server dev` is "
                f"{DEFAULT_DIR})."
            )
        return settings.model_copy(update={"data_dir": DEFAULT_DIR})
    return settings


def load_service_settings(data_dir: Path | None, **overrides: Any) -> Settings:
    """Settings of a process that needs store and Redis, both checked against production's rules.

    Without REDIS_URL the Redis of a `dev` that runs on the same data directory is taken.

    Raises:
        SettingsInvalid: a service is not named, or is open to the world.
    """
    settings = load_store_settings(data_dir, **overrides)
    if settings.redis_url is None:
        settings = settings.model_copy(update={"redis_url": _redis_of_dev(settings.data_dir)})
    if settings.environment == "production" and not settings.allow_open_services:
        _refuse_open("REDIS_URL", settings.redis_url)
        _refuse_open("REDIS_PUBSUB_URL", settings.redis_pubsub_url)
        _refuse_open("MONGODB_URL", settings.mongodb_url)
    return settings


def check_services(settings: Settings) -> None:
    """Asks each Redis whether it can be relied upon; once logging is set up, for what it warns of.

    Raises:
        SettingsInvalid: one cannot.
    """
    from machina.cli.redis_check import check_redis

    if settings.data_dir is not None:
        ours = DataDirectory(settings.data_dir).read_redis_url()
        if settings.log_redis_url == settings.redis_url == ours:
            return  # started by `dev` as it must be
    asked = {settings.redis_url: "REDIS_URL"}
    asked.setdefault(settings.redis_pubsub_url, "REDIS_PUBSUB_URL")
    for url, variable in asked.items():
        if url is not None:
            check_redis(variable, url)


def _redis_of_dev(data_dir: Path | None) -> str:
    remedy = "name a Redis, for example REDIS_URL=redis://localhost:6379/0"
    if data_dir is None:
        raise SettingsInvalid(f"REDIS_URL is not set: {remedy}.")
    url = DataDirectory(data_dir).read_redis_url()
    if url is None or not _accepts(unquote(url.removeprefix("unix://"))):
        raise SettingsInvalid(
            f"REDIS_URL is not set and no `machina-server dev` runs on {data_dir}: {remedy}, "
            f"or start `machina-server dev --data-dir {data_dir}` first."
        )
    return url


def _accepts(socket_path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(socket_path)
        except OSError:
            return False
        return True


def _refuse_open(variable: str, url: str | None) -> None:
    if url is None:
        return
    parts = _URL.fullmatch(url)
    if parts is None or parts["scheme"] == "unix":
        return
    if _PASSWORD.fullmatch(parts["user"] or "") or _AUTH_OPTION.search(parts["rest"]):
        return
    hosts = parts["hosts"].split(",")
    if parts["scheme"] == "mongodb+srv" or any(not _is_near(_host(item)) for item in hosts):
        raise SettingsInvalid(
            f"{variable}={url}: no password, and not on this machine or a private network. "
            "Put a user and a password into the URL, or set MACHINA_ALLOW_OPEN_SERVICES=1 "
            "if something else protects it."
        )


def _host(item: str) -> str:
    return item[1 : item.find("]")] if item.startswith("[") else item.partition(":")[0]


def _is_near(host: str) -> bool:
    """Whether every address of the host is loopback or private; blocking (name service).

    A name that does not resolve now is let through: the process must be able to start before its
    services do, and cannot connect to it anyway.
    """
    if not host or host.lower().startswith("%2f"):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return True
    return not any(_is_global(str(place[4][0])) for place in found)


def _is_global(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_global
