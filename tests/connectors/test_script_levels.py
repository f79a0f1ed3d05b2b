"""Which isolation is chosen, what is refused, and what is said about it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from machina.connectors.scripts import ScriptsOff, open_scripts
from machina.connectors.scripts.child import landlock
from machina.connectors.scripts.isolation import Isolation
from machina.errors import ConnectorFailed, SettingsInvalid
from tests.connectors.scripting import RUN, body, call_of, failure, opened, run, script_settings

FINE = body("return {'status': True, 'data': 'fine'}")


@pytest.mark.parametrize(
    ("environment", "setting", "on"),
    [
        ("production", None, False),
        ("production", True, True),
        ("dev", None, True),
        ("dev", False, False),
    ],
)
async def test_scripts_are_off_in_production_and_on_in_dev_unless_told(
    tmp_path: Path, environment: str, setting: bool | None, on: bool
) -> None:
    settings = script_settings(tmp_path, environment=environment, scripts=setting)
    async with open_scripts(settings) as scripts:
        assert scripts.describe()["enabled"] is on


async def test_a_call_says_how_to_switch_scripts_on_when_they_are_off(tmp_path: Path) -> None:
    async with open_scripts(script_settings(tmp_path, scripts=False)) as scripts:
        assert isinstance(scripts, ScriptsOff)
        with pytest.raises(ConnectorFailed, match="MACHINA_SCRIPTS=on") as raised:
            await scripts.call(call_of(FINE))
        assert raised.value.code == "scripts_disabled"
        await scripts.forget(RUN)
    assert not (tmp_path / "work").exists()  # nothing was made


async def test_the_highest_level_that_works_is_taken(tmp_path: Path) -> None:
    async with opened(tmp_path) as scripts:
        assert scripts.describe()["level"] == 3
        assert scripts.describe()["higher_levels_refused"] == {}


async def test_the_next_level_is_taken_and_the_reason_told_when_bubblewrap_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with opened(tmp_path) as scripts:
        told = scripts.describe()
        assert (told["level"], told["name"]) == (2, "landlock")
        assert "install the package bubblewrap" in told["higher_levels_refused"]["3"]


async def test_a_bubblewrap_that_does_not_work_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_bwrap(tmp_path, monkeypatch)
    async with opened(tmp_path) as scripts:
        assert scripts.describe()["level"] == 2
        assert "No permissions" in scripts.describe()["higher_levels_refused"]["3"]
        assert await run(scripts, FINE) == "fine"


async def test_a_bubblewrap_that_shuts_nothing_is_seen_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bwrap(tmp_path, monkeypatch, 'while [ "$1" != "--" ]; do shift; done; shift; exec "$@"')
    async with opened(tmp_path) as scripts:
        assert scripts.describe()["level"] == 2


@pytest.mark.parametrize("level", ["3", "2"])
async def test_a_named_level_that_is_not_to_be_had_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    nothing_but_limits(tmp_path, monkeypatch)
    settings = script_settings(tmp_path, script_sandbox=level)
    with pytest.raises(SettingsInvalid, match=f"MACHINA_SCRIPT_SANDBOX={level}: this machine"):
        async with open_scripts(settings):
            pass


async def test_production_refuses_level_1_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_but_limits(tmp_path, monkeypatch)
    with pytest.raises(SettingsInvalid, match="MACHINA_SCRIPT_SANDBOX=1"):
        async with open_scripts(script_settings(tmp_path, environment="production")):
            pass
    async with opened(tmp_path, environment="production", script_sandbox="1") as scripts:
        assert scripts.describe()["level"] == 1


async def test_dev_goes_down_to_level_1_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_but_limits(tmp_path, monkeypatch)
    async with opened(tmp_path) as scripts:
        assert scripts.describe()["level"] == 1
        assert sorted(scripts.describe()["higher_levels_refused"]) == ["2", "3"]
        assert await run(scripts, FINE) == "fine"


@pytest.mark.parametrize("level", [2, 1])
async def test_each_level_says_what_it_does_not_stop(tmp_path: Path, level: int) -> None:
    async with opened(tmp_path, script_sandbox=str(level)) as scripts:
        told = " ".join(scripts.describe()["not_stopped"])
        assert ("read every file" in told) is (level == 1)
        assert ("every address" in told) is (level == 1)


@pytest.mark.parametrize(
    "text", ["#!/bin/sh\nexit 3\n", "#!/bin/sh\necho '{\"version\": [2, 7, 0]}'\n", None]
)
async def test_an_interpreter_that_is_none_stops_the_start(
    tmp_path: Path, text: str | None
) -> None:
    python = tmp_path / "python"
    if text is not None:
        python.write_text(text)
        python.chmod(0o755)
    settings = script_settings(tmp_path, script_python=python)
    with pytest.raises(SettingsInvalid, match="MACHINA_SCRIPT_PYTHON"):
        async with open_scripts(settings):
            pass


async def test_scripts_run_with_the_interpreter_that_the_operator_names(tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text(venv_config())
    packages = tmp_path / "env" / "lib" / python_folder() / "site-packages"
    packages.mkdir(parents=True)
    (packages / "only_here.py").write_text("VALUE = 'found'\n")
    python.symlink_to(base_python())
    source = body("import only_here", "return {'status': True, 'data': only_here.VALUE}")
    async with opened(tmp_path, script_python=python) as scripts:
        assert await run(scripts, source) == "found"


async def test_named_variables_reach_scripts_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHINA_PROJECT_KEY", "mk-visible")
    monkeypatch.setenv("REDIS_PASSWORD", "hidden")
    source = body("import os", "return {'status': True, 'data': dict(os.environ)}")
    names = ("MACHINA_PROJECT_KEY", "UNSET_VARIABLE")
    async with opened(tmp_path, script_env=names) as scripts:
        got = await run(scripts, source)
    assert got["MACHINA_PROJECT_KEY"] == "mk-visible"
    assert "REDIS_PASSWORD" not in got
    assert "UNSET_VARIABLE" not in got


@pytest.mark.parametrize("level", ["3", "2", "1"])
async def test_no_variable_of_a_script_shows_in_the_list_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    monkeypatch.setenv("MACHINA_PROJECT_KEY", "mk-3f9c-visible")
    settings = {"script_sandbox": level, "script_env": ("MACHINA_PROJECT_KEY",)}
    source = body("import os", "return {'status': True, 'data': dict(os.environ)}")
    async with opened(tmp_path, **settings) as scripts:
        got = await run(scripts, source)  # its process stays for the next call
        lines = await asyncio.to_thread(command_lines)
        token = scripts._children._start.__self__._gate.token  # type: ignore[attr-defined]  # ours
    assert got["MACHINA_PROJECT_KEY"] == "mk-3f9c-visible"
    assert got["TMPDIR"] == got["MACHINA_WORK_DIR"]
    assert any("child.main" in line for line in lines)
    assert not [line for line in lines if "mk-3f9c-visible" in line or token in line]


def command_lines() -> list[str]:
    """Of all processes of this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_text(errors="replace"))
    return lines


async def test_a_child_that_cannot_be_confined_runs_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox="2") as scripts:
        scripts._children._start.__self__.isolation = Isolation(2, gate_port=70_000)  # type: ignore[attr-defined]  # breaks it on purpose
        failed = await failure(scripts, FINE)
    assert failed.code == "connector_failed"
    assert "could not be started" in failed.message


def nothing_but_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine as a locked-down container is one: no namespaces, no Landlock."""
    broken_bwrap(tmp_path, monkeypatch)
    monkeypatch.setattr(landlock, "abi", lambda: 0)


def broken_bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap(tmp_path, monkeypatch, "echo 'bwrap: No permissions to create namespace' >&2; exit 1")


def bwrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def base_python() -> str:
    import sys

    return str(Path(sys.base_prefix) / "bin" / "python3")


def python_folder() -> str:
    import sys

    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def venv_config() -> str:
    return f"home = {Path(base_python()).parent}\ninclude-system-site-packages = false\n"
