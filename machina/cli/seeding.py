"""What `dev` puts into its store at a start: the sample agent, and a key for whoever tries it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import cast

from machina.auth import DEFAULT_PROJECT, Keyring, Scope
from machina.cli.directory import DataDirectory, write_private
from machina.cli.sample import load_sample
from machina.settings import Settings
from machina.store import Store, open_store
from machina.store.base import Duplicate
from machina.store.definitions import Kind


async def seed(settings: Settings, directory: DataDirectory) -> None:
    """Adds what is missing and leaves alone what is there, whoever changed it.

    Raises:
        SettingsInvalid, StoreDown: the store cannot be opened.
    """
    async with open_store(settings) as store:
        await _seed_sample(store)
        await _seed_admin_key(store, directory)


async def _seed_sample(store: Store) -> None:
    for kind, definition in load_sample():
        with suppress(Duplicate):
            await store.definitions.create(DEFAULT_PROJECT, cast(Kind, kind), definition)


async def _seed_admin_key(store: Store, directory: DataDirectory) -> None:
    keyring = Keyring(store.keys, clock=time.monotonic, now=store.now)
    kept = directory.read_admin_key()
    if kept is not None:
        principal = await keyring.verify(kept)
        if principal is not None and principal.is_admin:
            directory.admin_key.chmod(0o600)
            return
    text, _ = await keyring.create(Scope.ADMIN, name="dev")
    write_private(directory.admin_key, text)
