"""Secrets in the store: sealed at rest, opened for runs, known by name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from machina.errors import Invalid, VaultLocked
from machina.ids import make_mint
from machina.settings import load_settings
from machina.store import Store, open_store
from machina.store.base import Backend, QueryRefused
from machina.store.secrets import MAX_VALUE, SecretStore
from machina.vault import make_key, make_vault
from tests.store.backends import Place, open_place

KEY, OLDER = make_key(), make_key()
CANARY = "canary-3f9a77"


def store_on(backend: Backend, keys: str | None = KEY) -> SecretStore:
    return SecretStore(backend, make_mint(), make_vault(keys))


@pytest.fixture
def secrets(store: Store) -> SecretStore:
    return store_on(store.backend)


async def test_a_secret_is_kept_changed_and_forgotten(secrets: SecretStore) -> None:
    assert await secrets.put("p", "A", "one") is True
    assert await secrets.put("p", "A", "two") is False
    assert await secrets.put("p", "$B", "three") is True
    assert await secrets.values("p") == {"A": "two", "B": "three"}
    assert await secrets.check("p", ["A", "$A", "$B", "C"]) == {
        "A": True,
        "$A": True,
        "$B": True,
        "C": False,
    }
    assert await secrets.delete("p", "$A") is True
    assert await secrets.delete("p", "A") is False
    assert await secrets.values("p") == {"B": "three"}


async def test_every_backend_keeps_sealed_bytes(place: Place) -> None:
    async with open_place(place) as backend:
        secrets = store_on(backend)
        await secrets.put("p", "A", CANARY)
        assert await secrets.values("p") == {"A": CANARY}
        (record,) = await backend.collection("secrets").find({})
        assert CANARY not in str(record)
        assert set(record) == {
            "_id",
            "project",
            "name",
            "key_id",
            "nonce",
            "data",
            "created",
            "updated",
        }


def test_nothing_on_the_disk_shows_a_value(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, vault_key=KEY)

    async def keep() -> dict[str, str]:
        async with open_store(settings) as store:
            await store.secrets.put("default", "A", CANARY)
            return await store.secrets.values("default")

    assert asyncio.run(keep()) == {"A": CANARY}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    for path in written:
        content = path.read_bytes()
        assert CANARY.encode() not in content
        assert KEY.encode() not in content
    assert KEY not in repr(settings)


async def test_the_names_come_in_pages_and_without_values(secrets: SecretStore) -> None:
    for name in ("C", "A", "B"):
        await secrets.put("p", name, CANARY)
    names, total = await secrets.names("p", limit=2)
    assert ([secret.name for secret in names], total) == (["A", "B"], 3)
    rest, _ = await secrets.names("p", {"name": {"$gt": "B"}})
    assert [secret.name for secret in rest] == ["C"]
    newest, _ = await secrets.names("p", {"date": {"$gte": "2020-01-01"}}, sort=(("name", -1),))
    assert [secret.name for secret in newest] == ["C", "B", "A"]
    assert CANARY not in str(names + rest + newest)


@pytest.mark.parametrize("path", ["data", "nonce", "key_id", "project", "name.x", "$where"])
async def test_nothing_but_names_and_dates_can_be_searched(secrets: SecretStore, path: str) -> None:
    with pytest.raises(Invalid):
        await secrets.names("p", {path: "x"})
    with pytest.raises(Invalid):
        await secrets.names("p", {"$or": [{path: "x"}]})
    with pytest.raises((Invalid, QueryRefused)):
        await secrets.names("p", sort=((path, 1),))


async def test_projects_do_not_share_secrets(secrets: SecretStore) -> None:
    await secrets.put("p", "A", "mine")
    assert await secrets.values("q") == {}
    assert await secrets.names("q") == ([], 0)
    assert await secrets.check("q", ["A"]) == {"A": False}
    assert await secrets.delete("q", "A") is False
    assert await secrets.put("q", "A", "theirs") is True
    assert await secrets.values("p") == {"A": "mine"}


async def test_a_record_moved_to_another_name_does_not_open(
    store: Store, secrets: SecretStore
) -> None:
    await secrets.put("p", "A", CANARY)
    change = {"$set": {"name": "B"}}
    await store.backend.collection("secrets").find_and_update({"name": "A"}, change)
    with capture_logs() as logs:
        assert await secrets.values("p") == {}
    assert [entry["event"] for entry in logs] == ["secret.locked"]
    assert CANARY not in str(logs)


async def test_without_a_key_nothing_is_kept_and_runs_without_secrets_go_on(store: Store) -> None:
    locked = store_on(store.backend, None)
    with pytest.raises(VaultLocked, match="MACHINA_VAULT_KEY"):
        await locked.put("p", "A", CANARY)
    assert await locked.values("p") == {}
    await store_on(store.backend).put("p", "A", CANARY)
    with capture_logs() as logs:
        assert await locked.values("p") == {}
    assert logs[0]["name"] == "A"
    assert await locked.check("p", ["A"]) == {"A": True}
    assert [secret.name for secret in (await locked.names("p"))[0]] == ["A"]
    assert await locked.delete("p", "A") is True


async def test_keys_are_rotated_without_losing_a_secret(store: Store) -> None:
    await store_on(store.backend, OLDER).put("p", "A", "one")
    await store_on(store.backend, OLDER).put("q", "B", "two")
    rotating = store_on(store.backend, f"{KEY},{OLDER}")
    await rotating.put("p", "C", "three")
    assert await rotating.values("p") == {"A": "one", "C": "three"}
    assert await store_on(store.backend, KEY).values("p") == {"C": "three"}
    assert await rotating.reseal() == 2
    assert await rotating.reseal() == 0
    rotated = store_on(store.backend, KEY)
    assert await rotated.values("p") == {"A": "one", "C": "three"}
    assert await rotated.values("q") == {"B": "two"}
    with pytest.raises(VaultLocked):
        await store_on(store.backend, None).reseal()
    with pytest.raises(VaultLocked):
        await store_on(store.backend, OLDER).reseal()


@pytest.mark.parametrize(
    "name", ["", "$", "a b", "a/b", "a\n", "-a", ".a", "é", "x" * 201, "a$b", None, 7, {"$ne": 1}]
)
async def test_what_is_no_name_is_refused(secrets: SecretStore, name: Any) -> None:
    with pytest.raises(Invalid) as refused:
        await secrets.put("p", name, CANARY)
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    "value", ["", "x" * (MAX_VALUE + 1), f"{CANARY}\0", f"{CANARY}\ud800", None, 7, {CANARY: 1}]
)
async def test_what_is_no_value_is_refused_and_not_quoted(secrets: SecretStore, value: Any) -> None:
    with pytest.raises(Invalid) as refused:
        await secrets.put("p", "A", value)
    assert CANARY not in str(refused.value)
    assert await secrets.values("p") == {}
