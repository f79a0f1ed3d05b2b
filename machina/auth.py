"""Who calls, what they may do, how they prove it: principals, scopes, API keys.

A key is `mk_<8 hex digits>_<43 url-safe characters>`: a prefix to look it up by, and 256 random
bits. It is shown once, when it is made; the store keeps its SHA-256 digest. A slow hash would add
nothing: there is no dictionary of 256-bit secrets.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from machina.errors import Invalid, Unauthenticated
from machina.ids import make_mint
from machina.store.keys import KeyStore

DEFAULT_PROJECT: Final = "default"
CACHE_SECONDS: Final = 5.0
"""How long a revoked key may still be accepted by another process."""

_KEY: Final = re.compile(r"mk_([0-9a-f]{8})_[A-Za-z0-9_-]{43}", re.ASCII)
_CACHE_ENTRIES: Final = 10_000
_NO_DIGEST: Final = "0" * 64


class Scope(StrEnum):
    """What a key may do: run agents and see its own runs, or everything in its project."""

    CLIENT = "client"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as its key names it; a client sees the runs of its own key."""

    id: str
    project: str
    scope: Scope
    key_id: str

    @property
    def is_admin(self) -> bool:
        return self.scope is Scope.ADMIN

    @property
    def sees(self) -> str | None:
        """Whose runs the caller sees: None for all of the project."""
        return None if self.is_admin else self.id


class MintedKey(NamedTuple):
    """A new key: the text to show once, and what is stored of it."""

    text: str
    prefix: str
    digest: str


def mint_key() -> MintedKey:
    """A new key with 256 bits of randomness."""
    prefix = secrets.token_hex(4)
    text = f"mk_{prefix}_{secrets.token_urlsafe(32)}"
    return MintedKey(text, prefix, hash_key(text))


def hash_key(text: str) -> str:
    """What the store keeps of a key, in hex."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Keyring:
    """Verifies keys, with a short memory, so that a key costs a look-up every few seconds at most.

    `clock` gives seconds that never go back, `now` the store's time.
    """

    def __init__(
        self,
        keys: KeyStore,
        *,
        clock: Callable[[], float],
        now: Callable[[], Awaitable[datetime]],
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._now = now
        self._cache_seconds = cache_seconds
        self._mint = make_mint()
        self._known: OrderedDict[str, tuple[Principal | None, float]] = OrderedDict()

    async def create(
        self, scope: Scope, *, project: str = DEFAULT_PROJECT, name: str = ""
    ) -> tuple[str, Principal]:
        """Makes a key; the text is shown to its owner once and cannot be had again.

        `name` is a label for people: every key is a caller of its own.
        """
        minted = mint_key()
        created = await self._now()
        key_id = self._mint(created.timestamp())
        await self._keys.insert(
            {
                "_id": key_id,
                "project": project,
                "name": name,
                "scope": str(scope),
                "prefix": minted.prefix,
                "digest": minted.digest,
                "created": created,
                "revoked": None,
                "expires": None,
            }
        )
        return minted.text, Principal(key_id, project, scope, key_id)

    async def revoke(self, key_id: str) -> bool:
        """Ends a key: here at once, in other processes within the cache's seconds."""
        found = await self._keys.revoke(key_id)
        for digest, (principal, _) in list(self._known.items()):
            if principal is not None and principal.key_id == key_id:
                del self._known[digest]
        return found

    async def verify(self, text: str) -> Principal | None:
        """Whose key this is; None for a text that is no valid key, of any form and length."""
        shape = _KEY.fullmatch(text)
        if shape is None:
            return None
        digest = hash_key(text)
        known = self._known.get(digest)
        if known is not None and self._clock() < known[1]:
            return known[0]
        principal = await self._look_up(shape[1], digest)
        self._remember(digest, principal)
        return principal

    async def _look_up(self, prefix: str, digest: str) -> Principal | None:
        record = await self._keys.by_prefix(prefix)
        # An unknown prefix costs the same comparison, so that the answer's time tells nothing.
        stored = _NO_DIGEST if record is None else record["digest"]
        if not hmac.compare_digest(stored, digest) or record is None:
            return None
        expires = record["expires"]
        if record["revoked"] is not None or (expires is not None and expires <= await self._now()):
            return None
        return Principal(record["_id"], record["project"], Scope(record["scope"]), record["_id"])

    def _remember(self, digest: str, principal: Principal | None) -> None:
        self._known[digest] = (principal, self._clock() + self._cache_seconds)
        self._known.move_to_end(digest)
        if len(self._known) > _CACHE_ENTRIES:
            self._known.popitem(last=False)


async def identify(keyring: Keyring, texts: Iterable[str]) -> Principal:
    """The caller behind the keys of one request; any valid one admits, next to invalid ones.

    Raises:
        Unauthenticated: no key, or none that is valid.
        Invalid: 400, two valid keys name different callers.
    """
    found: Principal | None = None
    for text in texts:
        principal = await keyring.verify(text)
        if principal is None:
            continue
        if found is None:
            found = principal
        elif found != principal:
            raise AmbiguousKeys("The request carries two valid keys; send one of them.")
    if found is None:
        raise Unauthenticated(
            "Send a valid key as 'Authorization: Bearer <key>' or 'X-Api-Token: <key>'; "
            "'machina-server keys create' makes one."
        )
    return found


class AmbiguousKeys(Invalid):
    """Two valid keys name different callers."""

    code, title, status = "ambiguous_keys", "Ambiguous credentials", 400
