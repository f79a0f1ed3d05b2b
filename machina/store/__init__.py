"""The store: what outlives a process, behind one port, opened with `open_store`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from machina.errors import SettingsInvalid
from machina.ids import make_mint
from machina.settings import Settings
from machina.store.base import Backend
from machina.store.blobs import BlobStore
from machina.store.definitions import DefinitionStore
from machina.store.documents import DocumentStore
from machina.store.embedded import open_embedded
from machina.store.keys import KeyStore
from machina.store.leases import LeaseStore
from machina.store.measured import MeasuredBackend
from machina.store.mongo import open_mongo
from machina.store.schedules import ScheduleStore
from machina.store.secrets import SecretStore
from machina.vault import make_vault

if TYPE_CHECKING:  # a command that is not measured need not load what measures
    from machina.observability.metrics import Metrics

__all__ = ["Store", "open_backend", "open_store"]

Opener = Callable[[Any], AbstractAsyncContextManager[Backend]]

BACKENDS: Final[Mapping[str, Opener]] = {
    "data_dir": open_embedded,
    "mongodb_url": open_mongo,
}
"""The setting that chooses a backend, and what opens it with its value; the first set one wins."""


def open_backend(settings: Settings) -> AbstractAsyncContextManager[Backend]:
    """The backend that the settings name, for the event loop it is entered on.

    Raises:
        SettingsInvalid: no setting names one, or it cannot be used.
        StoreDown: on entering, when it does not answer.
    """
    for field, opener in BACKENDS.items():
        value = getattr(settings, field)
        if value is not None:
            return opener(value)
    raise SettingsInvalid(
        "No store is named: give a directory with --data-dir or MACHINA_DATA_DIR, or the address "
        "of a MongoDB with MONGODB_URL."
    )


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that is kept, each kind behind its own rules."""

    backend: Backend
    definitions: DefinitionStore
    documents: DocumentStore
    keys: KeyStore
    leases: LeaseStore
    schedules: ScheduleStore
    secrets: SecretStore
    blobs: BlobStore

    async def now(self) -> datetime:
        """The store's own clock, by which leases and deadlines are measured."""
        return await self.backend.now()


@asynccontextmanager
async def open_store(settings: Settings, metrics: Metrics | None = None) -> AsyncIterator[Store]:
    """The store that the settings name, timed in `metrics`; `open_backend` says what is raised."""
    vault = make_vault(settings.vault_key.get_secret_value() if settings.vault_key else None)
    mint = make_mint()
    async with open_backend(settings) as opened:
        backend = (
            opened if metrics is None else MeasuredBackend(opened, metrics.process.store_seconds)
        )
        yield Store(
            backend=backend,
            definitions=DefinitionStore(backend, mint),
            documents=DocumentStore(backend, mint, vector_index=settings.atlas_vector_index),
            keys=KeyStore(backend),
            leases=LeaseStore(backend),
            schedules=ScheduleStore(backend),
            secrets=SecretStore(backend, mint, vault),
            blobs=BlobStore(backend, mint),
        )
