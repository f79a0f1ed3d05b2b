"""Keys: what is stored of them, whose they are, and that nothing else opens the door."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from machina.auth import (
    CACHE_SECONDS,
    AmbiguousKeys,
    Keyring,
    Principal,
    Scope,
    hash_key,
    identify,
    mint_key,
)
from machina.errors import StoreDown, Unauthenticated
from machina.settings import Settings
from machina.store import Store, open_store


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(Settings(data_dir=tmp_path)) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keyring(store: Store, clock: Clock) -> Keyring:
    return Keyring(store.keys, clock=clock, now=store.now)


def read_all(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.rglob("*") if path.is_file()]


def test_keys_have_a_form_of_their_own_and_256_random_bits() -> None:
    minted = [mint_key() for _ in range(100)]
    for key in minted:
        assert re.fullmatch(r"mk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", key.text)
        assert key.text.startswith(f"mk_{key.prefix}_")
        assert key.digest == hash_key(key.text)
        assert len(key.digest) == 64
    assert len({key.text for key in minted}) == 100


async def test_a_key_names_its_caller(keyring: Keyring) -> None:
    text, made = await keyring.create(Scope.CLIENT, project="p", name="laptop")
    assert await keyring.verify(text) == made
    assert (made.project, made.scope, made.is_admin, made.sees) == (
        "p",
        Scope.CLIENT,
        False,
        made.id,
    )
    admin_text, admin = await keyring.create(Scope.ADMIN)
    assert (admin.project, admin.is_admin, admin.sees) == ("default", True, None)
    assert await keyring.verify(admin_text) == admin
    assert admin.id != made.id


async def test_nothing_of_a_key_is_stored_but_its_prefix_and_digest(
    keyring: Keyring, store: Store, tmp_path: Path
) -> None:
    text, made = await keyring.create(Scope.ADMIN)
    (record,) = await store.keys.list("default")
    secret = text.rpartition("_")[2]
    assert record["digest"] == hash_key(text)
    assert secret not in str(record)
    files = read_all(tmp_path)
    assert files
    assert all(secret.encode() not in content for content in files)
    assert record["_id"] == made.key_id
    assert secret not in repr(vars(keyring)), "nor is it remembered"


async def test_what_is_no_key_opens_nothing(keyring: Keyring) -> None:
    text, _ = await keyring.create(Scope.ADMIN)
    prefix = text[:12]
    for wrong in (
        "",
        "mk_",
        text[:-1],
        text + "=",
        text + "\n",
        f" {text}",
        text.upper(),
        prefix + "x" * 43,
        prefix + "\u0661" * 43,
        "x" * 1_000_000,
        text.replace("mk_", "sk_"),
        "mk_00000000_" + text[12:],
    ):
        assert await keyring.verify(wrong) is None, wrong[:60]


async def test_a_revoked_key_ends_here_at_once_and_elsewhere_within_the_cache(
    keyring: Keyring, store: Store
) -> None:
    other_clock = Clock()
    elsewhere = Keyring(store.keys, clock=other_clock, now=store.now)
    text, made = await keyring.create(Scope.CLIENT)
    assert await keyring.verify(text) == await elsewhere.verify(text) == made
    assert await keyring.revoke(made.key_id)
    assert await keyring.verify(text) is None
    assert await elsewhere.verify(text) == made
    other_clock.now += CACHE_SECONDS
    assert await elsewhere.verify(text) is None
    assert not await keyring.revoke(made.key_id)
    assert not await keyring.revoke("0" * 24)


async def test_an_expired_key_opens_nothing(keyring: Keyring, store: Store, clock: Clock) -> None:
    minted = mint_key()
    now = await store.now()
    await store.keys.insert(
        {
            "_id": "a" * 24,
            "project": "default",
            "name": "",
            "scope": "admin",
            "prefix": minted.prefix,
            "digest": minted.digest,
            "created": now,
            "revoked": None,
            "expires": now + timedelta(seconds=0.2),
        }
    )
    assert await keyring.verify(minted.text) == Principal(
        "a" * 24, "default", Scope.ADMIN, "a" * 24
    )
    while await store.now() < now + timedelta(seconds=0.2):
        pass
    clock.now += CACHE_SECONDS
    assert await keyring.verify(minted.text) is None


async def test_a_key_costs_one_look_up_in_a_while_also_when_it_is_unknown(
    keyring: Keyring, clock: Clock, store: Store
) -> None:
    text, made = await keyring.create(Scope.CLIENT)
    unknown = mint_key().text
    assert await keyring.verify(text) == made
    assert await keyring.verify(unknown) is None
    record = await store.keys.by_prefix(text[3:11])
    assert record is not None
    # Behind the keyring's back: what it remembers shows that the store is not asked again.
    await store.backend.collection("keys").delete({"_id": record["_id"]})
    assert await keyring.verify(text) == made
    clock.now += CACHE_SECONDS
    assert await keyring.verify(text) is None


async def test_without_the_store_known_keys_work_for_a_while_and_others_are_not_called_wrong(
    tmp_path: Path, clock: Clock
) -> None:
    async with open_store(Settings(data_dir=tmp_path)) as store:
        keyring = Keyring(store.keys, clock=clock, now=store.now)
        text, made = await keyring.create(Scope.CLIENT)
        await keyring.verify(text)
    assert await keyring.verify(text) == made
    with pytest.raises(StoreDown):
        await keyring.verify(mint_key().text)


async def test_any_valid_key_of_a_request_admits(keyring: Keyring) -> None:
    text, made = await keyring.create(Scope.CLIENT)
    assert await identify(keyring, ["stale", text, "eyJ.some.jwt", text]) == made
    with pytest.raises(Unauthenticated, match="X-Api-Token"):
        await identify(keyring, ["stale", "eyJ.some.jwt"])
    with pytest.raises(Unauthenticated):
        await identify(keyring, [])


async def test_two_valid_keys_are_refused_rather_than_guessed_between(keyring: Keyring) -> None:
    one, _ = await keyring.create(Scope.CLIENT)
    two, _ = await keyring.create(Scope.ADMIN)
    with pytest.raises(AmbiguousKeys) as refused:
        await identify(keyring, [one, two])
    assert refused.value.status == 400
