"""What a run's secret tokens stand for: the project's vault first, then this process's environment.

The engine resolves a token in the middle of an expression and cannot wait there. So the vault is
read when a definition that names a token is loaded, and not at all for runs without one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from machina.vault import from_environment

CACHE_SECONDS: Final = 5.0
"""How old a value may be when a run begins to use it."""

_MARK: Final = b"_CONTEXT_VARIABLE_"

ReadVault = Callable[[str], Awaitable[Mapping[str, str]]]
"""The secrets of a project, in the clear."""


class Secrets:
    """The vault as one worker process sees it, a few seconds old at most."""

    def __init__(
        self,
        read: ReadVault,
        *,
        clock: Callable[[], float],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._read = read
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._cached: dict[str, tuple[float, Mapping[str, str]]] = {}

    def of_run(self, project: str, *, eager: bool = False) -> RunSecrets:
        """The secrets for one run; `eager`: its checkpoint may name some already."""
        return RunSecrets(self, project, eager=eager)

    async def load(self, project: str) -> Mapping[str, str]:
        """The project's vault.

        Raises:
            StoreDown: the store did not answer.
        """
        now = self._clock()
        cached = self._cached.get(project)
        if cached is not None and now - cached[0] <= CACHE_SECONDS:
            return cached[1]
        values = await self._read(project)
        self._forget_old(now)
        self._cached[project] = (now, values)
        return values

    def forget(self, project: str) -> None:
        """Reads this project's vault anew the next time."""
        self._cached.pop(project, None)

    def from_environment(self, name: str) -> str | None:
        """What the operator provides under this name; null for an empty one."""
        return from_environment(name, self._environ)

    def _forget_old(self, now: float) -> None:
        """Nothing stays in memory in the clear for longer than it is used."""
        for project, (read_at, _) in list(self._cached.items()):
            if now - read_at > CACHE_SECONDS:
                del self._cached[project]


class RunSecrets:
    """The secrets of one run: prepared when definitions are loaded, then asked by name."""

    def __init__(self, secrets: Secrets, project: str, *, eager: bool) -> None:
        self._secrets = secrets
        self._project = project
        self._is_needed = eager
        self._vault: Mapping[str, str] | None = None

    def __call__(self, name: str) -> str | None:
        """The value under exactly this name; None when nobody provides it."""
        value = None if self._vault is None else self._vault.get(name)
        return value if value is not None else self._secrets.from_environment(name)

    async def prepare(self, definition: Mapping[str, Any] | None) -> None:
        """Reads the vault once a definition names a token.

        Raises:
            StoreDown: the store did not answer.
        """
        if self._vault is not None:
            return
        if self._is_needed or (definition is not None and names_token(definition)):
            self._is_needed = True
            self._vault = await self._secrets.load(self._project)

    async def refresh(self) -> None:
        """Reads the vault again, if it was read, after this run changed it.

        Raises:
            StoreDown: the store did not answer.
        """
        self._secrets.forget(self._project)
        if self._vault is not None:
            self._vault = await self._secrets.load(self._project)


def names_token(definition: Mapping[str, Any]) -> bool:
    """Whether a definition may use a secret; found in its JSON, which costs microseconds."""
    try:
        written = orjson.dumps(definition, default=str, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # what JSON cannot hold: better one look too many
        return True
    return _MARK in written
