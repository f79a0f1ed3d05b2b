"""`templates install` and `templates list`: what is printed, and with which exit code it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Run, commands_in
from tests.templates.git_server import make_repository
from tests.templates.packing import BUNDLES, zipped, zipped_folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `machina-server templates` on an embedded store, without any setting."""
    return commands_in(tmp_path, monkeypatch, capsys, "templates")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The samples outside of any repository of git."""
    folder = tmp_path / "samples"
    for path in BUNDLES.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(BUNDLES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def test_a_folder_installs_and_installs_again(run: Run, repository: Path) -> None:
    weather = str(repository / "agent-templates" / "weather")
    first = run("install", weather, "--data-dir", "data")
    assert (first.code, first.err) == (0, "")
    lines = first.out.splitlines()
    assert lines[:3] == [
        "agent-templates/weather:",
        "  saved    agent weather",
        "  saved    workflow forecast",
    ]
    assert "           missing credential: TEMP_CONTEXT_VARIABLE_WEATHER" in lines
    assert "           missing config document: weather-config" in lines
    assert "           missing template: connectors/absent" in lines
    assert "           missing dataset: weather:City" in lines
    assert lines[-1] == "16 saved, 0 updated, 0 failed."
    again = run("install", weather, "--data-dir", "data", "--project", "default")
    assert again.code == 0
    assert again.out.splitlines()[-1] == "0 saved, 16 updated, 0 failed."


def test_failed_entries_are_printed_and_the_exit_code_says_so(run: Run, repository: Path) -> None:
    said = run("install", str(repository), "--template", "odd", "--data-dir", "data")
    assert said.code == 1
    assert "  skipped  empty.yml: the file is empty." in said.out
    half = "agent-templates/odd/half.yml: agent-templates/odd/nowhere.py: no such file"
    assert f"  FAILED   {half}" in said.out
    assert said.out.splitlines()[-1] == "9 saved, 0 updated, 3 skipped, 14 failed."
    assert said.err == ""


def test_an_archive_installs_and_a_hostile_one_does_not(run: Run, tmp_path: Path) -> None:
    archive = tmp_path / "weather.zip"
    archive.write_bytes(zipped_folder(BUNDLES / "connectors" / "weather-api"))
    said = run("install", str(archive), "--data-dir", "data", "--json")
    assert said.code == 0
    (answer,) = json.loads(said.out)
    assert answer["data"]["results"][0]["message"] == "connector saved"
    archive.write_bytes(zipped({"../x.yml": "x"}))
    said = run("install", str(archive), "--data-dir", "data")
    assert said.code == 1
    assert "not allowed" in said.err


def test_a_repository_installs_by_its_url(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_repository(
        tmp_path / "r",
        {"x/_install.yml": "datasets: [{path: a.yml}]", "x/a.yml": "agent: {name: a}"},
    )
    url = f"file://{tmp_path / 'r'}"
    refused = run("install", url, "--data-dir", "data")
    assert refused.code == 1
    assert "FAILED   The repository's URL" in refused.out
    monkeypatch.setenv("MACHINA_GIT_ALLOW", "file")
    monkeypatch.setenv("MACHINA_GIT_TOKEN", "ghp_canary")  # for https only
    said = run("install", url, "--branch", "main", "--template", "x", "--data-dir", "data")
    assert (said.code, said.out) == (0, "x:\n  saved    agent a\n1 saved, 0 updated, 0 failed.\n")
    listed = run("list", url)
    assert (listed.code, listed.out.split()) == (0, ["x", "1", "files"])
    token = run("list", "https://ghp_other@127.0.0.1/x")
    assert token.code == 1
    assert "ghp_" not in token.err + token.out


def test_templates_are_listed_from_a_folder_and_an_archive(
    run: Run, repository: Path, tmp_path: Path
) -> None:
    said = run("list", str(repository))
    assert said.code == 0
    lines = said.out.splitlines()
    assert len(lines) == 11
    (line,) = (line for line in lines if line.startswith("agent-templates/weather "))
    assert line.split() == ["agent-templates/weather", "10", "files", "Weather"]
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped_folder(repository))
    rows: list[dict[str, Any]] = json.loads(run("list", str(archive), "--json").out)
    assert [row["path"] for row in rows] == [line.split()[0] for line in lines]


@pytest.mark.parametrize("command", [["install", "--data-dir", "data"], ["list"]])
def test_a_source_that_is_none_is_said(command: list[str], run: Run) -> None:
    said = run(command[0], "nowhere", *command[1:])
    assert said.code == 2
    assert "no such folder or archive" in said.err


def test_a_store_must_be_named_in_production(run: Run, repository: Path) -> None:
    said = run("install", str(repository))
    assert said.code == 2
    assert "MONGODB_URL is not set" in said.err


def test_an_unknown_protocol_in_the_setting_is_refused(
    run: Run, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHINA_GIT_ALLOW", "https, ext")
    said = run("list", str(repository))
    assert said.code == 2
    assert "MACHINA_GIT_ALLOW" in said.err
