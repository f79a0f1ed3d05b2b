"""Looks at a Redis before a process relies on it: one that evicts loses runs without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from machina.errors import SettingsInvalid
from machina.settings import mask_password

log = structlog.get_logger(__name__)

OLDEST: Final = (6, 2)
SECONDS: Final = 2.0


def check_redis(variable: str, url: str) -> None:
    """Refuses a Redis that is too old or may evict, warns of one that forgets. Blocking.

    One that does not answer, or will not tell, is let through: a process must be able to start
    before its services do.

    Raises:
        SettingsInvalid: names the variable, what is wrong and the command that repairs it.
    """
    try:
        info = _ask(url)
    except ValueError as unreadable:
        raise SettingsInvalid(
            f"{variable}={mask_password(url)}: {unreadable}; write it as redis://localhost:6379/0"
        ) from None
    except RedisError as silent:
        log.warning("redis.not_checked", variable=variable, error=str(silent))
        return
    shown = f"{variable}={mask_password(url)}"
    version = str(info.get("redis_version", ""))
    if _number(version) < OLDEST:
        raise SettingsInvalid(f"{shown}: Redis {version} is too old; use 6.2 or newer.")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise SettingsInvalid(
            f"{shown}: its maxmemory-policy is {policy}, which throws away queued and running runs "
            "when memory is short; set it with: CONFIG SET maxmemory-policy noeviction"
        )
    if not info.get("aof_enabled", 1):
        log.warning(
            "redis.forgets",
            variable=variable,
            remedy="without appendonly, what is queued and streamed is lost when Redis restarts",
        )


def _ask(url: str) -> Mapping[str, Any]:
    client = Redis.from_url(
        url,
        socket_timeout=SECONDS,
        socket_connect_timeout=SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    try:
        info: Mapping[str, Any] = client.info()
        return info
    finally:
        client.close()


def _number(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    # What calls itself something else is no older Redis.
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else OLDEST
