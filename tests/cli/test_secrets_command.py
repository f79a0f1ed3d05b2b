"""The commands of secrets: values come from standard input or a prompt and are never printed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from machina.cli.directory import DataDirectory
from machina.cli.preflight import load_store_settings
from machina.store import open_store
from machina.vault import make_key
from tests.commands import Run, commands_in

CANARY = "canary-77ab01"
NAME = "TEMP_CONTEXT_VARIABLE_WEATHER"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `machina-server secrets` in this process."""
    return commands_in(tmp_path, monkeypatch, capsys, "secrets")


@pytest.fixture
def place(tmp_path: Path) -> tuple[str, str]:
    """A data directory in which `dev` has made its key."""
    directory = DataDirectory(tmp_path / "data")
    directory.create()
    directory.keep_vault_key()
    return ("--data-dir", str(directory.path))


def values(place: tuple[str, str], project: str = "default") -> dict[str, str]:
    """What the store of that directory holds in the clear."""

    async def read() -> dict[str, str]:
        async with open_store(load_store_settings(Path(place[1]))) as store:
            return await store.secrets.values(project)

    return asyncio.run(read())


def test_a_secret_is_set_listed_and_deleted(run: Run, place: tuple[str, str]) -> None:
    assert run("set", NAME, *place, given=f"{CANARY}\n") == (0, f"{NAME} saved\n", "")
    assert run("set", f"${NAME}", *place, given="two\nlines\n\n") == (0, f"{NAME} updated\n", "")
    assert run("set", "B", "--project", "q", *place, given="other").code == 0
    assert values(place) == {NAME: "two\nlines\n"}
    assert values(place, "q") == {"B": "other"}
    header, line = run("list", *place).out.splitlines()
    assert header.split() == ["UPDATED", "NAME"]
    assert line.split()[1] == NAME
    assert run("delete", NAME, *place) == (0, "", "")
    gone = run("delete", NAME, *place)
    assert (gone.code, gone.out) == (2, "")
    assert NAME in gone.err
    assert values(place) == {}


def test_a_value_is_asked_for_without_showing_it_on_a_terminal(
    run: Run, place: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return CANARY

    monkeypatch.setattr("getpass.getpass", answer)
    said = run("set", NAME, *place, terminal=True)
    assert (said.code, CANARY in said.out + said.err) == (0, False)
    assert asked == [f"Value of {NAME}: "]
    assert values(place) == {NAME: CANARY}


@pytest.mark.parametrize("given", ["", "\n", "x" * 65_537, f"{CANARY}\0"])
def test_a_value_that_cannot_be_kept_is_refused_and_not_shown(
    run: Run, place: tuple[str, str], given: str
) -> None:
    said = run("set", NAME, *place, given=given)
    assert (said.code, said.out) == (1, "")
    assert CANARY not in said.err
    assert values(place) == {}


def test_the_value_is_no_argument(run: Run, place: tuple[str, str]) -> None:
    assert run("set", NAME, CANARY, *place).code == 2
    assert run("set", "bad name", *place, given="x").code == 1
    assert values(place) == {}


def test_without_a_key_nothing_is_kept(run: Run, tmp_path: Path) -> None:
    said = run("set", NAME, "--data-dir", str(tmp_path / "new"), given=CANARY)
    assert (said.code, said.out) == (1, "")
    assert "MACHINA_VAULT_KEY is not set" in said.err
    assert CANARY not in said.err
    assert run("list", "--data-dir", str(tmp_path / "new")).code == 0


def test_a_key_is_rotated(
    run: Run, place: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("set", NAME, *place, given=CANARY)
    older = DataDirectory(Path(place[1])).read_vault_key()
    fresh = make_key()
    monkeypatch.setenv("MACHINA_VAULT_KEY", f"{fresh},{older}")
    assert run("reseal", *place) == (0, "1 resealed\n", "")
    monkeypatch.setenv("MACHINA_VAULT_KEY", fresh)
    assert values(place) == {NAME: CANARY}
    monkeypatch.setenv("MACHINA_VAULT_KEY", "nonsense")
    broken = run("list", *place)
    assert (broken.code, broken.out) == (2, "")
    assert "MACHINA_VAULT_KEY: key 1 is not 32 bytes in base64" in broken.err


def test_the_key_of_a_directory_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    assert directory.read_vault_key() is None
    key = directory.keep_vault_key()
    directory.vault_key.chmod(0o644)
    assert directory.keep_vault_key() == key == directory.read_vault_key()
    assert directory.vault_key.stat().st_mode & 0o777 == 0o600


def test_the_environments_key_goes_before_that_of_the_directory(
    place: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(place[1])
    monkeypatch.delenv("MACHINA_VAULT_KEY", raising=False)
    taken = load_store_settings(directory).vault_key
    assert taken is not None
    assert taken.get_secret_value() == DataDirectory(directory).read_vault_key()
    monkeypatch.setenv("MACHINA_VAULT_KEY", fresh := make_key())
    taken = load_store_settings(directory).vault_key
    assert taken is not None
    assert taken.get_secret_value() == fresh
