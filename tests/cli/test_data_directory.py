from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from machina.cli import redis_exec
from machina.cli.directory import DataDirectory, write_private
from machina.errors import SettingsInvalid

REDIS_EXEC = Path(redis_exec.__file__)
HOLD = [sys.executable, "-c", "import sys; print('held', flush=True); sys.stdin.read()"]


def test_a_directory_of_any_depth_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "a" / "b" / "c" / "data")
    directory.create()
    directory.create()
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsInvalid, match="--data-dir") as refused:
        DataDirectory(tmp_path / "file" / "data").create()
    assert str(tmp_path / "file" / "data") in refused.value.message


def test_a_second_lock_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    descriptor = directory.lock()
    try:
        with pytest.raises(SettingsInvalid, match=rf"in use .* process {os.getpid()};"):
            directory.lock(patience_seconds=0.1)
    finally:
        os.close(descriptor)
    os.close(directory.lock(patience_seconds=0))


def test_a_redis_that_outlives_its_dev_keeps_the_next_one_waiting(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    (directory.redis).mkdir()
    child = subprocess.Popen(
        [sys.executable, REDIS_EXEC, directory.redis_lock, str(os.getpid()), *HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        with pytest.raises(SettingsInvalid, match=f"process {child.pid}, still runs on"):
            directory.await_redis_end(patience_seconds=0)
        child.stdin.close()
        directory.await_redis_end()


def test_a_second_redis_does_not_start_on_the_same_directory(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    (directory.redis).mkdir()
    held = os.open(directory.redis_lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    lock_file = str(directory.redis_lock)
    command = [sys.executable, str(REDIS_EXEC), lock_file, str(os.getpid()), "/bin/true"]
    assert subprocess.run(command, check=False).returncode == 3
    os.close(held)
    assert subprocess.run(command, check=False).returncode == 0


def test_the_redis_url_is_private_and_forgotten_on_a_clean_stop(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    assert directory.read_redis_url() is None
    directory.write_redis_url("unix:///tmp/x.sock")
    assert directory.read_redis_url() == "unix:///tmp/x.sock"
    assert (tmp_path / "redis.url").stat().st_mode & 0o777 == 0o600
    directory.forget_redis_url()
    directory.forget_redis_url()
    assert directory.read_redis_url() is None


def test_a_private_file_is_private_whatever_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["admin.key"]
