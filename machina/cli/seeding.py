"""What `dev` puts into its store at a start: the sample agent, and a key for whoever tries it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from machina.auth import DEFAULT_PROJECT, Keyring, Scope
from machina.cli.directory import DataDirectory, write_private
from machina.cli.sample import load_sample
from machina.settings import Settings
from machina.store import open_store
from machina.store.base import Duplicate
from machina.store.definitions import Kind


def seed(settings: Settings, directory: DataDirectory) -> None:
    """Adds what is missing and leaves alone what is there, whoever changed it. Blocking.

    Raises:
        SettingsInvalid: the store cannot be used.
        StoreDown: it cannot be read.
    """
    new_key = asyncio.run(_seed_store(settings, load_sample(), directory.read_admin_key()))
    if new_key is not None:
        write_private(directory.admin_key, new_key)
    else:
        directory.admin_key.chmod(0o600)


async def _seed_store(
    settings: Settings, sample: Sequence[tuple[str, dict[str, Any]]], key: str | None
) -> str | None:
    """Returns a new admin key unless `key` is a valid one."""
    async with open_store(settings) as store:
        for kind, definition in sample:
            with suppress(Duplicate):
                await store.definitions.create(DEFAULT_PROJECT, cast(Kind, kind), definition)
        keyring = Keyring(store.keys, clock=time.monotonic, now=store.now)
        principal = await keyring.verify(key) if key is not None else None
        if principal is not None and principal.is_admin:
            return None
        text, _ = await keyring.create(Scope.ADMIN, name="dev")
        return text
