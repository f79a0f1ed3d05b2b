"""The commands `keys create`, `keys list` and `keys revoke`: they need the store and no Redis."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from machina.auth import Keyring, Scope
from machina.cli.preflight import load_store_settings
from machina.errors import SettingsInvalid
from machina.observability.logging import configure
from machina.settings import Settings
from machina.store import open_store


def create(*, scope: str, name: str, project: str, data_dir: Path | None) -> None:
    """Makes a key and prints its text, alone."""
    print(asyncio.run(_create(_open_settings(data_dir), Scope(scope), name, project)))


def show(*, project: str, data_dir: Path | None) -> None:
    """Prints a line per key, oldest first."""
    for line in asyncio.run(_lines(_open_settings(data_dir), project)):
        print(line)


def revoke(prefix: str, *, data_dir: Path | None) -> None:
    """Revokes the key with this prefix.

    Raises:
        SettingsInvalid: there is none.
    """
    asyncio.run(_revoke(_open_settings(data_dir), prefix))


def _open_settings(data_dir: Path | None) -> Settings:
    """The settings of the store; log lines go to standard error, where they spoil no output."""
    settings = load_store_settings(data_dir)
    configure(settings, process="keys")
    return settings


async def _create(settings: Settings, scope: Scope, name: str, project: str) -> str:
    async with open_store(settings) as store:
        keyring = Keyring(store.keys, clock=time.monotonic, now=store.now)
        text, _ = await keyring.create(scope, project=project, name=name)
        return text


async def _lines(settings: Settings, project: str) -> list[str]:
    async with open_store(settings) as store:
        keys = await store.keys.list(project)
    row = "{:<10} {:<8} {:<21} {:<21} {}"
    return [
        row.format("PREFIX", "SCOPE", "CREATED", "REVOKED", "NAME").rstrip(),
        *(
            row.format(
                key["prefix"],
                key["scope"],
                f"{key['created']:%Y-%m-%dT%H:%M:%SZ}",
                f"{key['revoked']:%Y-%m-%dT%H:%M:%SZ}" if key["revoked"] else "-",
                key["name"],
            ).rstrip()
            for key in keys
        ),
    ]


async def _revoke(settings: Settings, prefix: str) -> None:
    async with open_store(settings) as store:
        # What people have at hand is the beginning of the key itself.
        found = await store.keys.by_prefix(prefix.removeprefix("mk_").partition("_")[0])
        if found is None:
            raise SettingsInvalid(f"No key has the prefix {prefix}; `keys list` shows them all.")
        await store.keys.revoke(found["_id"])
