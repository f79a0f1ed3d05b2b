"""The vault's lock: what it seals opens only with its key, under its project and name."""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace

import pytest

from machina.errors import SettingsInvalid, VaultLocked
from machina.vault import KEY_BYTES, Vault, make_key, make_vault

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(100, 132))).decode()
VALUES = ("hunter2", "", "x" * 65_536, '{"type": "service_account"}', "größe \N{CLOUD}\n")


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_what_was_sealed_opens_again(value: str) -> None:
    sealed = make_vault(KEY).seal("p", "NAME", value)
    assert make_vault(KEY).open("p", "NAME", sealed) == value


def test_the_same_value_is_never_sealed_alike_and_cannot_be_read() -> None:
    vault = make_vault(KEY)
    first, second = (vault.seal("p", "NAME", "hunter2") for _ in range(2))
    assert first.nonce != second.nonce
    assert first.data != second.data
    assert b"hunter2" not in first.data


def test_a_sealed_value_is_bound_to_its_project_and_name() -> None:
    vault = make_vault(KEY)
    sealed = vault.seal("p", "NAME", "hunter2")
    for project, name in (("q", "NAME"), ("p", "OTHER"), ("pNAME", ""), ("", "pNAME")):
        with pytest.raises(VaultLocked, match="changed after it was sealed"):
            vault.open(project, name, sealed)


def test_a_damaged_value_does_not_open() -> None:
    vault = make_vault(KEY)
    sealed = vault.seal("p", "NAME", "hunter2")
    flipped = bytes([sealed.data[0] ^ 1]) + sealed.data[1:]
    for damaged in (
        replace(sealed, data=flipped),
        replace(sealed, data=sealed.data[:-1]),
        replace(sealed, data=b""),
        replace(sealed, nonce=bytes(12)),
    ):
        with pytest.raises(VaultLocked, match="set it again") as refused:
            vault.open("p", "NAME", damaged)
        assert "hunter2" not in str(refused.value)


def test_the_first_key_seals_and_every_key_opens() -> None:
    old = make_vault(OTHER).seal("p", "NAME", "hunter2")
    rotated = make_vault(f"{KEY}, {OTHER}")
    assert rotated.open("p", "NAME", old) == "hunter2"
    fresh = rotated.seal("p", "NAME", "hunter2")
    assert fresh.key_id == make_vault(KEY).key_id == rotated.key_id != old.key_id
    assert make_vault(KEY).open("p", "NAME", fresh) == "hunter2"


def test_another_key_is_told_from_a_damaged_value() -> None:
    sealed = make_vault(OTHER).seal("p", "NAME", "hunter2")
    with pytest.raises(VaultLocked, match="MACHINA_VAULT_KEY") as refused:
        make_vault(KEY).open("p", "NAME", sealed)
    assert sealed.key_id in str(refused.value)
    assert OTHER not in str(refused.value)


@pytest.mark.parametrize("text", [None, "", "  ", ",", " , "])
def test_a_vault_without_a_key_says_which_variable_to_set(text: str | None) -> None:
    vault = make_vault(text)
    sealed = make_vault(KEY).seal("p", "NAME", "hunter2")
    with pytest.raises(VaultLocked, match="MACHINA_VAULT_KEY is not set"):
        vault.seal("p", "NAME", "hunter2")
    with pytest.raises(VaultLocked, match="MACHINA_VAULT_KEY"):
        vault.open("p", "NAME", sealed)
    with pytest.raises(VaultLocked, match="MACHINA_VAULT_KEY is not set"):
        assert vault.key_id


@pytest.mark.parametrize(
    "text",
    [
        "secret-key-of-mine",
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        "A" * 44 + "!",
        "é" * 44,
        f"{KEY} {OTHER}",
        bytes(32).hex(),
    ],
)
def test_a_key_of_another_form_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"key 2 is not 32 bytes in base64") as refused:
        make_vault(f"{KEY},{text}")
    assert text not in str(refused.value)
    assert KEY not in str(refused.value)


def test_both_alphabets_and_missing_padding_are_read() -> None:
    raw = b"\xfb\xff" * 16
    ids = {
        make_vault(text).key_id
        for text in (
            base64.b64encode(raw).decode(),
            base64.urlsafe_b64encode(raw).decode(),
            base64.urlsafe_b64encode(raw).decode().rstrip("="),
        )
    }
    assert len(ids) == 1


def test_a_key_that_is_made_is_random_and_of_the_right_size() -> None:
    first, second = make_key(), make_key()
    assert first != second
    assert len(base64.b64decode(first)) == KEY_BYTES
    assert make_vault(first).key_id != make_vault(second).key_id


def test_a_key_id_tells_nothing_of_the_key() -> None:
    vault = Vault({"abc": bytes(32)})
    assert vault.key_id == "abc"
    assert make_vault(KEY).key_id not in bytes(range(32)).hex()


def test_the_library_is_loaded_by_who_opens_a_secret_only() -> None:
    script = (
        "import sys\n"
        "from machina.vault import make_key, make_vault\n"
        "vault = make_vault(make_key())\n"
        "assert 'cryptography' not in sys.modules\n"
        "vault.seal('p', 'N', 'v')\n"
        "assert 'cryptography' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
