"""Where secrets come from: the vault first, then the environment, by exact name, when needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from machina.worker.secrets import CACHE_SECONDS, RunSecrets, Secrets, names_token

NAME = "TEMP_CONTEXT_VARIABLE_SHOP"
USES: dict[str, Any] = {"name": "w", "context-variables": {"shop": {"key": f"${NAME}"}}}
PLAIN: dict[str, Any] = {"name": "w", "outputs": {"x": "$.get('x')"}}


class Vault:
    """A vault of two projects that counts how often it is read."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.secrets: dict[str, Mapping[str, str]] = {"default": {NAME: "vault"}, "other": {}}
        self.time = 0.0

    async def read(self, project: str) -> Mapping[str, str]:
        self.reads.append(project)
        return self.secrets[project]


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def secrets(vault: Vault) -> Secrets:
    environ = {
        NAME: "environment",
        "MACHINA_CONTEXT_VARIABLE_OPERATOR": "operator",
        "ACME_CONTEXT_VARIABLE_KEY": "tenant",
        "TEMP_CONTEXT_VARIABLE_EMPTY": "",
        "HOME": "/root",
        "AWS_SECRET_ACCESS_KEY": "never",
        "xTEMP_CONTEXT_VARIABLE_SHOP": "never",
    }
    return Secrets(vault.read, clock=lambda: vault.time, environ=environ)


async def prepared(secrets: Secrets, project: str = "default") -> RunSecrets:
    run = secrets.of_run(project)
    await run.prepare(USES)
    return run


async def test_the_vault_goes_before_the_environment(secrets: Secrets) -> None:
    assert (await prepared(secrets))(NAME) == "vault"
    assert (await prepared(secrets, "other"))(NAME) == "environment"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MACHINA_CONTEXT_VARIABLE_OPERATOR", "operator"),
        ("ACME_CONTEXT_VARIABLE_KEY", "tenant"),
        ("TEMP_CONTEXT_VARIABLE_EMPTY", None),
        ("TEMP_CONTEXT_VARIABLE_NOBODY", None),
        ("HOME", None),
        ("AWS_SECRET_ACCESS_KEY", None),
        ("xTEMP_CONTEXT_VARIABLE_SHOP", None),
        (f"{NAME}\n", None),
    ],
)
async def test_only_names_of_tokens_are_read_from_the_environment(
    secrets: Secrets, name: str, value: str | None
) -> None:
    assert (await prepared(secrets))(name) == value


async def test_the_vault_is_not_read_for_definitions_without_tokens(
    secrets: Secrets, vault: Vault
) -> None:
    run = secrets.of_run("default")
    await run.prepare(PLAIN)
    await run.prepare(None)
    assert vault.reads == []
    assert run(NAME) == "environment"


async def test_the_vault_is_read_once_for_many_definitions_and_runs(
    secrets: Secrets, vault: Vault
) -> None:
    for _ in range(3):
        run = await prepared(secrets)
        await run.prepare(USES)
    assert vault.reads == ["default"]


async def test_a_new_value_is_seen_by_runs_that_begin_some_seconds_later(
    secrets: Secrets, vault: Vault
) -> None:
    old = await prepared(secrets)
    vault.secrets["default"] = {NAME: "new"}
    vault.time += CACHE_SECONDS + 0.1
    assert (await prepared(secrets))(NAME) == "new"
    assert old(NAME) == "vault"


async def test_projects_do_not_see_each_other(secrets: Secrets) -> None:
    await prepared(secrets)
    assert (await prepared(secrets, "other"))("X") is None


async def test_a_run_with_a_checkpoint_reads_the_vault_with_its_first_definition(
    secrets: Secrets, vault: Vault
) -> None:
    run = secrets.of_run("default", eager=True)
    await run.prepare(PLAIN)
    assert vault.reads == ["default"]


async def test_what_a_run_writes_into_the_vault_is_seen_at_once(
    secrets: Secrets, vault: Vault
) -> None:
    run = await prepared(secrets)
    vault.secrets["default"] = {NAME: "new"}
    await run.refresh()
    assert run(NAME) == "new"
    assert (await prepared(secrets))(NAME) == "new"


async def test_nothing_is_read_again_when_nothing_was_read(secrets: Secrets, vault: Vault) -> None:
    await secrets.of_run("default").refresh()
    assert vault.reads == []


@pytest.mark.parametrize(
    "definition",
    [USES, {"a": [{"b": f"${NAME}"}]}, {"a": {1: f"x ${NAME}"}}, {"a": float, "b": f"${NAME}"}],
)
def test_a_token_is_found_anywhere_in_a_definition(definition: Any) -> None:
    assert names_token(definition)


def test_a_definition_that_json_cannot_hold_is_taken_to_name_one() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    assert names_token(deep)
    assert not names_token(PLAIN)
