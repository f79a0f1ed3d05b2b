"""The vault's lock: seals secrets with AES-256-GCM under keys that only the environment holds.

A sealed secret is bound to its project and its name, so that a record that was copied or renamed in
the store does not open. Keys are named by a digest; with several, the first seals and all open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from machina.errors import SettingsInvalid, VaultLocked

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE: Final = "MACHINA_VAULT_KEY"
KEY_BYTES: Final = 32
REMEDY: Final = "`openssl rand -base64 32` prints a key"

_TOKEN_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]*_CONTEXT_VARIABLE_[A-Z0-9_]+")
"""Only names of this form are ever read from the environment."""
_NONCE_BYTES: Final = 12
"""NIST SP 800-38D recommends 96 bits; random ones are safe for 2**32 secrets under one key."""
_URL_SAFE: Final = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret as it may be stored: `key_id` names the key that opens it."""

    key_id: str
    nonce: bytes
    data: bytes


class Vault:
    """Seals and opens secrets. Without a key it can do neither, and says so when asked to."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """`keys` by their ids; the first one seals."""
        self._keys = dict(keys)
        self._ciphers: dict[str, AESGCM] = {}

    @property
    def key_id(self) -> str:
        """The key that seals.

        Raises:
            VaultLocked: there is none.
        """
        for key_id in self._keys:
            return key_id
        raise VaultLocked(
            f"{VARIABLE} is not set, so no secret can be kept; {REMEDY}: give it to the API and "
            "to the workers."
        )

    def seal(self, project: str, name: str, value: str) -> Sealed:
        """The value, readable only with this vault's key and under this project and name.

        Raises:
            VaultLocked: there is no key.
        """
        key_id, nonce = self.key_id, os.urandom(_NONCE_BYTES)
        bound = _bound_to(project, name, key_id)
        return Sealed(key_id, nonce, self._cipher(key_id).encrypt(nonce, value.encode(), bound))

    def open(self, project: str, name: str, sealed: Sealed) -> str:
        """The value that was sealed under this project and name.

        Raises:
            VaultLocked: its key is not here, or the record is not what was sealed.
        """
        # Loading the library takes longer than starting a command: who has no secrets never does.
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # see above

        if sealed.key_id not in self._keys:
            raise VaultLocked(
                f"The secret '{name}' was sealed with the key {sealed.key_id}, which is not in "
                f"{VARIABLE}; add that key after the first one, with a comma, or set the secret "
                "again."
            )
        bound = _bound_to(project, name, sealed.key_id)
        try:
            return self._cipher(sealed.key_id).decrypt(sealed.nonce, sealed.data, bound).decode()
        except InvalidTag:
            raise VaultLocked(
                f"The stored secret '{name}' was changed after it was sealed; set it again."
            ) from None

    def _cipher(self, key_id: str) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # as above

        if key_id not in self._ciphers:
            self._ciphers[key_id] = AESGCM(self._keys[key_id])
        return self._ciphers[key_id]


def make_vault(text: str | None) -> Vault:
    """The vault for the value of `MACHINA_VAULT_KEY`: keys in base64, with commas between.

    Raises:
        SettingsInvalid: a key is not 32 bytes of base64; the message does not show it.
    """
    keys: dict[str, bytes] = {}
    for number, part in enumerate((text or "").split(","), start=1):
        if part.strip():
            key = _read_key(part.strip(), number)
            keys[_id_of(key)] = key
    return Vault(keys)


def from_environment(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The secret that the operator provides under this name; null for an empty one."""
    return (environ.get(name) or None) if _TOKEN_NAME.fullmatch(name) else None


def make_key() -> str:
    """A new random key, as the variable takes it."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def _read_key(text: str, number: int) -> bytes:
    try:
        padded = text.translate(_URL_SAFE).rstrip("=")
        key = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsInvalid(
            f"{VARIABLE}: key {number} is not {KEY_BYTES} bytes in base64; {REMEDY}."
        )
    return key


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"machina vault key\0" + key).hexdigest()[:16]


def _bound_to(project: str, name: str, key_id: str) -> bytes:
    return orjson.dumps(["machina-secret-1", project, name, key_id])
