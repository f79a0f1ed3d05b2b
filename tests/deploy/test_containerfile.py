"""The image, as far as it can be judged without building it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from typing import Final, NamedTuple

import pytest

from machina.settings import Settings
from tests.deploy.production import BIN, ROOT
from tests.deploy.variables import SETTINGS, unknown_variables

CONTAINERFILE: Final = ROOT / "Containerfile"
SECRETS: Final = {".env", ".machina"}
WORK_DIRECTORY: Final = "/var/lib/machina/work"


class Instruction(NamedTuple):
    """One instruction with its continuation lines joined."""

    name: str
    value: str


def read_stages() -> list[list[Instruction]]:
    """The instructions of each stage; a stage begins with its FROM."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    stages: list[list[Instruction]] = []
    for line in filter(None, text.splitlines()):
        name, _, value = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, " ".join(value.split())))
    return stages


def values(name: str, stage: list[Instruction]) -> list[str]:
    return [instruction.value for instruction in stage if instruction.name == name]


def environment(stage: list[Instruction]) -> dict[str, str]:
    pairs = (word.partition("=") for value in values("ENV", stage) for word in shlex.split(value))
    return {name: value for name, _, value in pairs}


def health_command() -> list[str]:
    """What the image's HEALTHCHECK runs."""
    (value,) = values("HEALTHCHECK", read_stages()[-1])
    command: list[str] = json.loads(value[value.index("[") :])
    return command


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", CONTAINERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_installed_is_the_frozen_lock_without_development_tools() -> None:
    (*_, build, _) = read_stages()
    syncs = [run for run in values("RUN", build) if "uv sync" in run]
    assert len(syncs) == 2
    for sync in syncs:
        assert {"--frozen", "--no-dev"} <= set(sync.split())
    assert "--no-editable" in syncs[-1], "the image has no sources to point at"


def test_every_base_image_names_its_version() -> None:
    images = [stage[0].value.split()[0] for stage in read_stages()]
    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []


def test_both_stages_have_the_same_python_so_that_the_environment_fits() -> None:
    (_, build, final) = read_stages()
    assert build[0].value.split()[0] == final[0].value.split()[0]


def test_it_runs_as_a_number_that_is_not_root() -> None:
    (user,) = values("USER", read_stages()[-1])
    uid, gid = (int(part) for part in user.split(":"))
    assert min(uid, gid) >= 1000


def test_scripts_have_a_place_of_their_users_own() -> None:
    final = read_stages()[-1]
    (user,) = values("USER", final)
    uid, gid = user.split(":")
    assert environment(final)["MACHINA_WORK_DIR"] == WORK_DIRECTORY
    made = f"install -d -o {uid} -g {gid} {WORK_DIRECTORY}"
    assert any(made in command for command in values("RUN", final))


@pytest.mark.parametrize("file", ["/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo/"])
def test_a_base_without_authorities_or_time_zones_does_not_build(file: str) -> None:
    assert any(f"test -s {file}" in command for command in values("RUN", read_stages()[-1]))


def test_it_listens_where_it_says() -> None:
    final = read_stages()[-1]
    shown = environment(final)
    assert values("EXPOSE", final) == [str(Settings.model_fields["port"].default)]
    assert (shown["MACHINA_PORT"], shown["MACHINA_HOST"]) == ("5003", "0.0.0.0")
    assert shown["MACHINA_ENVIRONMENT"] == "production"


def test_every_setting_it_names_exists() -> None:
    assert unknown_variables(CONTAINERFILE.read_text()) == set()
    ours = {name for name in environment(read_stages()[-1]) if name.startswith("MACHINA_")}
    assert ours <= SETTINGS.keys()


def test_its_command_is_the_console_script() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    final = read_stages()[-1]
    (entry,) = (json.loads(value) for value in values("ENTRYPOINT", final))
    assert entry == list(scripts)
    assert values("CMD", final) == ['["api"]']


def test_its_health_check_asks_for_liveness_with_what_the_image_has() -> None:
    program, *rest = health_command()
    assert program == "python"
    assert "/system/liveness" in rest[-1]


def test_nothing_is_taken_into_it_that_the_ignore_file_keeps_out() -> None:
    rules = (ROOT / ".containerignore").read_text().splitlines()
    assert "*" in rules, "everything is kept out unless named"
    named = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        word
        for stage in read_stages()
        for value in values("COPY", stage)
        if not value.startswith("--from")
        for word in value.split()[:-1]
    }
    assert copied == named
    assert not named & SECRETS
    assert all((ROOT / name).exists() for name in named)


def test_docker_reads_the_same_ignore_file() -> None:
    assert (ROOT / ".dockerignore").read_text() == (ROOT / ".containerignore").read_text()
