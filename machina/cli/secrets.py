"""The commands `secrets set`, `list`, `delete` and `reseal`: they need the store and no Redis.

A value comes from standard input or from a prompt, never from the command line: other users of the
machine see command lines, and shells remember them.
"""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from machina.cli.preflight import load_store_settings
from machina.errors import SettingsInvalid
from machina.observability.logging import configure
from machina.store import Store, open_store
from machina.store.secrets import MAX_VALUE, SecretName, check_secret_name

_PAGE: Final = 5_000


def put(name: str, *, project: str, data_dir: Path | None) -> None:
    """Keeps the value that standard input or the prompt gives, and says so.

    Raises:
        Invalid: a name or a value that cannot be kept.
        VaultLocked: there is no key to seal it with.
    """
    name = check_secret_name(name)
    created = asyncio.run(_put(project, name, _read_value(name), data_dir))
    print(f"{name} {'saved' if created else 'updated'}")


def show(*, project: str, data_dir: Path | None) -> None:
    """Prints a line per secret, by name; never a value."""
    row = "{:<21} {}"
    secrets = asyncio.run(_names(project, data_dir))
    print(row.format("UPDATED", "NAME"))
    for secret in secrets:
        print(row.format(f"{secret.updated:%Y-%m-%dT%H:%M:%SZ}", secret.name))


def delete(name: str, *, project: str, data_dir: Path | None) -> None:
    """Forgets a secret.

    Raises:
        SettingsInvalid: there is none of this name.
    """
    asyncio.run(_delete(project, name, data_dir))


def reseal(*, data_dir: Path | None) -> None:
    """Seals all secrets with the first key of `MACHINA_VAULT_KEY`, and says how many it changed."""
    print(f"{asyncio.run(_reseal(data_dir))} resealed")


def _read_value(name: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"Value of {name}: ")
    # One line feed belongs to whoever wrote it, as `echo` does.
    return sys.stdin.read(MAX_VALUE + 2).removesuffix("\n")


@asynccontextmanager
async def _open(data_dir: Path | None) -> AsyncIterator[Store]:
    """The store; log lines go to standard error, where they spoil no output."""
    settings = load_store_settings(data_dir)
    configure(settings, process="secrets")
    async with open_store(settings) as store:
        yield store


async def _put(project: str, name: str, value: str, data_dir: Path | None) -> bool:
    async with _open(data_dir) as store:
        return await store.secrets.put(project, name, value)


async def _names(project: str, data_dir: Path | None) -> list[SecretName]:
    names: list[SecretName] = []
    async with _open(data_dir) as store:
        while True:
            found, total = await store.secrets.names(project, skip=len(names), limit=_PAGE)
            names += found
            if not found or len(names) >= total:
                return names


async def _delete(project: str, name: str, data_dir: Path | None) -> None:
    async with _open(data_dir) as store:
        if not await store.secrets.delete(project, name):
            raise SettingsInvalid(f"There is no secret {name}; `secrets list` shows them all.")


async def _reseal(data_dir: Path | None) -> int:
    async with _open(data_dir) as store:
        return await store.secrets.reseal()
