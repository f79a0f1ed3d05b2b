"""The command table from the outside: help, exit codes, what goes to which stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from machina import __version__
from machina.cli.serve import parse_queues
from machina.errors import SettingsInvalid
from machina.queue.names import Queue
from tests.commands import Run, commands_in


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `machina-server` in this process, in an empty directory and without any setting."""
    return commands_in(tmp_path, monkeypatch, capsys)


def test_the_version_is_said(run: Run) -> None:
    assert run("--version") == (0, f"machina-server {__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("dev", ["--data-dir", "--use-env", "MACHINA_PORT", "OPENAI_API_KEY"]),
        ("api", ["--workers", "GUNICORN_WORKERS", "REDIS_URL", "MACHINA_DRAIN_SECONDS"]),
        ("worker", ["--queues", "--processes", "MACHINA_WORKER_THREADS", "MACHINA_LEASE_SECONDS"]),
        ("keys", ["create", "list", "revoke", "MONGODB_URL", "MACHINA_DATA_DIR"]),
        ("keys create", ["--scope", "client|admin", "--project", "--data-dir"]),
        ("openapi", ["Reads no setting"]),
    ],
)
def test_help_names_options_and_settings(command: str, names: list[str], run: Run) -> None:
    said = run(*command.split(), "--help")
    assert said.code == 0
    assert [name for name in names if name not in said.out] == []
    assert "--share-port" not in said.out


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "api --port abc",
        "api --port 70000",
        "api --workers 0",
        "worker --threads 0",
        "keys create",
        "keys create --scope root",
        "keys revoke",
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_so(arguments: str, run: Run) -> None:
    said = run(*arguments.split())
    assert said.code == 2
    assert said.out == ""
    assert "Error: " in said.err


@pytest.mark.parametrize("command", ["api", "worker", "keys list"])
def test_production_without_a_store_exits_with_2_and_one_line(command: str, run: Run) -> None:
    said = run(*command.split())
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("machina-server: MONGODB_URL is not set")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("command", ["api", "worker"])
def test_a_directory_without_a_running_dev_exits_with_2_and_the_remedy(
    command: str, run: Run, tmp_path: Path
) -> None:
    said = run(command, "--data-dir", str(tmp_path / "data"))
    assert said.code == 2
    assert f"`machina-server dev --data-dir {tmp_path / 'data'}`" in said.err


def test_a_queue_that_does_not_exist_is_named(run: Run, tmp_path: Path) -> None:
    said = run("worker", "--queues", "low_priority,fast", "--data-dir", str(tmp_path))
    assert said.code == 2
    assert "fast is no queue; choose from streaming_priority, high_priority" in said.err


def test_queues_are_served_most_urgent_first() -> None:
    assert parse_queues(None) == list(Queue)
    assert parse_queues(" low_priority,streaming_priority,") == [Queue.STREAMING, Queue.LOW]
    with pytest.raises(SettingsInvalid, match="nothing is no queue"):
        parse_queues(" , ")


def test_a_key_is_created_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    place = ("--data-dir", str(tmp_path / "store"))
    created = run("keys", "create", "--scope", "admin", "--name", "ci", *place)
    assert (created.code, created.err) == (0, "")
    key = created.out.removesuffix("\n")
    prefix = key.split("_")[1]
    assert created.out.count("\n") == 1

    header, line = run("keys", "list", *place).out.splitlines()
    assert header.split() == ["PREFIX", "SCOPE", "CREATED", "REVOKED", "NAME"]
    assert line.split()[:2] == [prefix, "admin"]
    assert line.split()[3:] == ["-", "ci"]
    assert run("keys", "list", "--project", "other", *place).out.splitlines() == [header]

    assert run("keys", "revoke", prefix, *place) == (0, "", "")
    (_, line) = run("keys", "list", *place).out.splitlines()
    assert line.split()[3].endswith("Z")
    again = run("keys", "revoke", "mk_00000000", *place)
    assert again.code == 2
    assert "No key has the prefix mk_00000000" in again.err


def test_the_openapi_document_is_the_same_whatever_is_set(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("openapi")
    monkeypatch.setenv("MACHINA_CLIENT_VERSION", "9.9.9")
    monkeypatch.setenv("MACHINA_DOCS", "0")
    monkeypatch.setenv("REDIS_URL", "nonsense")
    assert run("openapi") == first
    assert (first.code, first.err) == (0, "")
    assert json.loads(first.out)["openapi"].startswith("3.1")


def test_python_m_machina_is_the_same_command_and_loads_little_for_its_help() -> None:
    code = "import sys, runpy; sys.argv[1:] = ['--help']\n"
    code += "try: runpy.run_module('machina', run_name='__main__')\n"
    code += "except SystemExit: print(*sorted(sys.modules), file=sys.stderr)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in said.stdout
    loaded = set(said.stderr.split())
    assert loaded & {"pydantic", "redis", "fastapi", "dramatiq", "structlog", "uvicorn"} == set()
