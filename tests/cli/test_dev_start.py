from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from machina.auth import DEFAULT_PROJECT, Keyring, Principal
from machina.cli.dev import settle_environment
from machina.cli.directory import DataDirectory
from machina.cli.sample import load_sample
from machina.cli.seeding import seed
from machina.cli.welcome import welcome
from machina.settings import Settings, load_settings
from machina.store import Store, open_store
from machina.store.definitions import Kind

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    return DataDirectory(tmp_path / "data")


@pytest.fixture
def settings(directory: DataDirectory) -> Settings:
    return load_settings(data_dir=directory.path, environment="dev")


def in_store(settings: Settings, ask: Callable[[Store], Awaitable[T]]) -> T:
    """What a question to the store gives."""

    async def opened() -> T:
        async with open_store(settings) as store:
            return await ask(store)

    return asyncio.run(opened())


def stored(settings: Settings, kind: str, name: str) -> dict[str, Any]:
    found = in_store(
        settings, lambda store: store.definitions.get(DEFAULT_PROJECT, cast(Kind, kind), name)
    )
    assert found is not None
    return found


def owner(settings: Settings, key: str | None) -> Principal | None:
    def ask(store: Store) -> Awaitable[Principal | None]:
        return Keyring(store.keys, clock=time.monotonic, now=store.now).verify(key or "")

    return in_store(settings, ask)


def test_the_sample_is_seeded_whole_and_what_a_user_changed_is_left_alone(
    settings: Settings, directory: DataDirectory
) -> None:
    seed(settings, directory)
    for kind, definition in load_sample():
        found = stored(settings, kind, definition["name"])
        assert {key: found[key] for key in definition} == definition

    mine = {"name": "hello", "title": "Mine"}
    in_store(settings, lambda store: store.definitions.save(DEFAULT_PROJECT, "agent", mine))
    seed(settings, directory)
    assert stored(settings, "agent", "hello")["title"] == "Mine"


def test_the_admin_key_is_kept_as_long_as_it_works(
    settings: Settings, directory: DataDirectory
) -> None:
    seed(settings, directory)
    first = directory.read_admin_key()
    directory.admin_key.chmod(0o644)
    seed(settings, directory)
    assert directory.read_admin_key() == first
    assert directory.admin_key.stat().st_mode & 0o777 == 0o600
    principal = owner(settings, first)
    assert principal is not None
    assert principal.is_admin

    key_id = principal.key_id
    in_store(settings, lambda store: store.keys.revoke(key_id))
    seed(settings, directory)
    second = directory.read_admin_key()
    assert second != first
    assert owner(settings, second) is not None


def test_a_key_of_another_store_is_replaced(settings: Settings, directory: DataDirectory) -> None:
    directory.create()
    directory.admin_key.write_text("mk_00000000_" + "x" * 43)
    seed(settings, directory)
    assert owner(settings, directory.read_admin_key()) is not None


def test_dev_goes_by_its_own_services_and_by_the_rest_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_URL=redis://file\nLOG_LEVEL=debug\nMACHINA_PORT=1\n")
    environ = {"MONGODB_URL": "mongodb://other", "MACHINA_DATA_DIR": "x", "MACHINA_PORT": "2"}
    settle_environment(environ, use_env=False)
    assert environ == {
        "LOG_LEVEL": "debug",
        "MACHINA_PORT": "2",
        "MACHINA_ENV_FILE": os.devnull,
    }


def test_dev_heeds_the_services_of_the_environment_when_it_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_URL=redis://file\n")
    environ = {"MONGODB_URL": "mongodb://other"}
    settle_environment(environ, use_env=True)
    assert environ == {
        "REDIS_URL": "redis://file",
        "MONGODB_URL": "mongodb://other",
        "MACHINA_ENV_FILE": os.devnull,
    }


def test_the_welcome_says_which_model_answers(settings: Settings, tmp_path: Path) -> None:
    odd = DataDirectory(tmp_path / "it's here")
    scripted = welcome("http://127.0.0.1:5003", settings, odd)
    assert "A scripted model answers; set OPENAI_API_KEY" in scripted
    assert f"""$(cat '{tmp_path}/it'"'"'s here/admin.key')""" in scripted
    real = welcome(
        "http://127.0.0.1:5003", load_settings(openai_base_url="http://llm/v1", model="m1"), odd
    )
    assert "The model m1 at http://llm/v1 answers." in real
