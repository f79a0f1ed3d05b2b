"""The directory of a run: shared by its calls, private to it, and gone when it is over."""

from __future__ import annotations

import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from machina.connectors.scripts.bubblewrap import SANDBOX_TMP, wrap
from machina.connectors.scripts.directories import STALE_SECONDS, RunDirectories, remove, size_of
from tests.connectors.scripting import OTHER_RUN, RUN, body, opened, run, script_settings

WRITE = body(
    "import os, tempfile",
    "fd, path = tempfile.mkstemp(suffix='.txt')",
    "os.write(fd, b'kept')",
    "open(os.path.join(os.environ['MACHINA_WORK_DIR'], 'named'), 'w').write('too')",
    "return {'status': True, 'data': path}",
)
READ = body("return {'status': True, 'data': open(request['params']['path']).read()}")
NAMED = body("import os", "return {'status': True, 'data': os.path.exists(os.environ['TMPDIR'])}")


@pytest.mark.parametrize("level", ["3", "2", "1"])
async def test_a_path_that_one_script_returns_is_the_same_file_for_the_next(
    tmp_path: Path, level: str
) -> None:
    async with opened(tmp_path, script_sandbox=level) as scripts:
        path = Path(await run(scripts, WRITE))
        assert path.parent == scripts.directory(RUN)
        assert await run(scripts, READ, inputs={"path": str(path)}) == "kept"
        assert content(path) == "kept"
        await scripts.forget(RUN)
        assert not there(path.parent)


async def test_a_hard_coded_tmp_is_shared_by_the_scripts_of_a_run(tmp_path: Path) -> None:
    write = body("open('/tmp/picture.png', 'w').write('px')", "return {'status': True}")
    async with opened(tmp_path, script_sandbox="3") as scripts:
        await run(scripts, write)
        assert await run(scripts, READ, inputs={"path": "/tmp/picture.png"}) == "px"
        assert content(scripts.directory(RUN) / "picture.png") == "px"
        assert not there(Path("/tmp/picture.png"))


async def test_runs_have_directories_of_their_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as scripts:
        await run(scripts, WRITE)
        await run(scripts, WRITE, run_id=OTHER_RUN)
        await scripts.forget(RUN)
        assert not there(scripts.directory(RUN))
        assert content(scripts.directory(OTHER_RUN) / "named") == "too"


async def test_a_directory_outlives_the_worker_for_the_next_attempt(tmp_path: Path) -> None:
    async with opened(tmp_path) as scripts:
        path = await run(scripts, WRITE)
    async with opened(tmp_path) as scripts:
        assert await run(scripts, READ, inputs={"path": path}) == "kept"


async def test_another_level_takes_a_directory_over(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox="2") as scripts:
        await run(scripts, WRITE)
    async with opened(tmp_path, script_sandbox="1") as scripts:
        assert await run(scripts, WRITE)


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", "a" * 65, ".", "a\0b"])
async def test_what_could_be_a_path_is_no_run_id(tmp_path: Path, run_id: str) -> None:
    async with opened(tmp_path, script_sandbox="1") as scripts:
        with pytest.raises(ValueError, match="no run id"):
            scripts.directory(run_id)


def test_what_nobody_holds_is_removed_at_start_once_it_is_old(tmp_path: Path) -> None:
    settings = script_settings(tmp_path)
    first = RunDirectories(settings)
    first.open()
    held, _ = first.claim(RUN)
    gone = RunDirectories(settings)
    gone.open()
    abandoned, _ = gone.claim(OTHER_RUN)
    young, _ = gone.claim("young")
    gone.close()
    for directory in (held, abandoned):
        make_old(directory)
    RunDirectories(settings).open()
    assert held.exists()
    assert young.exists()
    assert not abandoned.exists()
    first.close()


def test_the_locks_of_dead_processes_are_removed(tmp_path: Path) -> None:
    settings = script_settings(tmp_path)
    living = RunDirectories(settings)
    living.open()
    dead = tmp_path / "work" / "owners" / "1-dead.lock"
    dead.touch()
    make_old(dead)
    for lock in (tmp_path / "work" / "owners").iterdir():
        make_old(lock)
    RunDirectories(settings).open()
    assert not dead.exists()
    assert (tmp_path / "work" / "owners" / f"{living.token}.lock").exists()


def test_the_place_is_below_the_data_directory_or_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = RunDirectories(script_settings(tmp_path, work_dir=None, data_dir=tmp_path / "data"))
    below.open()
    assert below.base == tmp_path / "data" / "work"
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    shared = RunDirectories(script_settings(tmp_path, work_dir=None))
    shared.open()
    assert shared.base == tmp_path / f"machina-work-{os.geteuid()}"


def test_a_temporary_place_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap").mkdir()
    (tmp_path / f"machina-work-{os.geteuid()}").symlink_to(tmp_path / "trap")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    places = RunDirectories(script_settings(tmp_path, work_dir=None))
    places.open()
    assert places.base.parent == tmp_path
    assert not places.base.is_symlink()
    assert list((tmp_path / "trap").iterdir()) == []


def test_links_are_not_followed_when_a_directory_is_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("stays")
    doomed = tmp_path / "doomed"
    (doomed / "closed").mkdir(parents=True)
    (doomed / "closed" / "file").write_text("goes")
    (doomed / "link").symlink_to(tmp_path / "precious")
    (doomed / "closed").chmod(0)
    remove(doomed)
    assert not doomed.exists()
    assert (tmp_path / "precious" / "file").read_text() == "stays"


def test_a_directory_is_counted_with_its_depths_and_without_its_links(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(100_000))
    (tmp_path / "a" / "link").symlink_to("/usr")
    size = size_of(tmp_path, enough=1 << 30)
    assert 100_000 <= size < 200_000
    assert size_of(tmp_path, enough=50_000) > 50_000
    assert size_of(tmp_path / "missing", enough=10) == 0


def make_old(path: Path) -> None:
    then = path.stat().st_mtime - STALE_SECONDS - 60
    os.utime(path, (then, then))


def content(path: Path) -> str:
    return path.read_text()


def there(path: Path) -> bool:
    return path.exists()


def test_all_children_of_a_run_get_the_same_user_when_they_start_side_by_side(
    tmp_path: Path,
) -> None:
    directories = RunDirectories(script_settings(tmp_path), other_uid=True)
    directories.open()
    try:
        for number in range(20):
            ready = threading.Barrier(4)

            def claim(ready: threading.Barrier = ready, run_id: str = f"run{number}") -> int | None:
                ready.wait()
                return directories.claim(run_id)[1]

            with ThreadPoolExecutor(4) as pool:
                claimed = [pool.submit(claim) for _ in range(4)]
            assert len({one.result() for one in claimed}) == 1
    finally:
        directories.close()


def test_an_interpreter_below_tmp_is_not_hidden_by_the_tmp_of_the_run(tmp_path: Path) -> None:
    line = wrap(
        ["/tmp/venv/bin/python"],
        readable=["/tmp/venv"],
        directory=tmp_path,
        own_user_space=False,
        keep_setuid=False,
        network=False,
    )
    assert line.index(SANDBOX_TMP) < line.index("/tmp/venv")


@pytest.mark.parametrize("interpreter", ["/tmp/venv", "/usr"])
def test_only_an_interpreter_below_tmp_needs_to_pass_the_directory_of_the_run(
    tmp_path: Path, interpreter: str
) -> None:
    line = wrap(
        ["python"],
        readable=[interpreter],
        directory=tmp_path,
        own_user_space=False,
        keep_setuid=True,
        network=False,
    )
    assert ("CAP_DAC_READ_SEARCH" in line) is (interpreter == "/tmp/venv")
