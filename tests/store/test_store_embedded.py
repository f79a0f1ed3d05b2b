"""What only the SQLite backend does: its file, its layout, its threads."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import threading
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from machina.errors import SettingsInvalid, StoreDown
from machina.settings import Settings, load_settings
from machina.store import open_backend, open_store
from machina.store.embedded import FILE_NAME, SCHEMA_VERSION, open_embedded
from machina.store.indexes import COLLECTIONS, Index
from machina.store.lanes import Lane, read_jobs, store_down, write_jobs
from machina.store.tables import Table


def connect(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(directory / FILE_NAME, isolation_level=None)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# The file --------------------------------------------------------------------------------------


async def test_directory_and_files_belong_to_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    mask = os.umask(0)
    try:
        async with open_embedded(directory) as backend:
            await backend.collection("documents").insert({"_id": "x"})
            modes = {path.name: mode(path) for path in directory.iterdir()}
    finally:
        os.umask(mask)
    assert mode(directory) == 0o700
    assert modes == dict.fromkeys(modes, 0o600)
    assert {FILE_NAME, f"{FILE_NAME}-wal"} <= set(modes)


async def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsInvalid, match=r"MACHINA_DATA_DIR=.*file"):
        async with open_embedded(tmp_path / "file"):
            pass


async def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 100)
    with pytest.raises(StoreDown, match="is not a database"):
        async with open_embedded(tmp_path, busy_seconds=0.05):
            pass


async def test_a_file_of_a_newer_program_is_not_opened(tmp_path: Path) -> None:
    async with open_embedded(tmp_path) as backend:
        await backend.collection("documents").insert({"_id": "x"})
    file = connect(tmp_path)
    file.execute("UPDATE machina_schema SET version = ?", (SCHEMA_VERSION + 1,))
    with pytest.raises(SettingsInvalid, match=f"version {SCHEMA_VERSION + 1}"):
        async with open_embedded(tmp_path):
            pass
    file.execute("UPDATE machina_schema SET version = ?", (SCHEMA_VERSION,))
    file.close()
    async with open_embedded(tmp_path) as backend:
        assert await backend.collection("documents").get("x") == {"_id": "x"}


async def test_many_can_open_a_new_file_at_the_same_time(tmp_path: Path) -> None:
    async def use(number: int) -> None:
        async with open_embedded(tmp_path) as backend:
            await backend.collection("documents").insert({"_id": f"{number}"})

    await asyncio.gather(*(use(number) for number in range(6)))
    async with open_embedded(tmp_path) as backend:
        assert await backend.collection("documents").count({}) == 6


async def test_opening_waits_for_another_process_that_sets_the_file_up(tmp_path: Path) -> None:
    other = connect(tmp_path)
    for lock in ("EXCLUSIVE", "IMMEDIATE"):
        other.execute(f"BEGIN {lock}")
        with pytest.raises(StoreDown, match="locked"):
            async with open_embedded(tmp_path, busy_seconds=0.05):
                pass
        other.execute("ROLLBACK")
    other.execute("BEGIN IMMEDIATE")
    asyncio.get_running_loop().call_later(0.05, other.close)
    async with open_embedded(tmp_path) as backend:
        assert await backend.collection("documents").count({}) == 0


async def test_a_file_that_stays_locked_is_reported_with_a_remedy(tmp_path: Path) -> None:
    async with open_embedded(tmp_path, busy_seconds=0.05) as backend:
        documents = backend.collection("documents")
        await documents.insert({"_id": "x"})
        other = connect(tmp_path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreDown, match="another process kept it locked"):
            await documents.insert({"_id": "y"})
        assert await documents.get("x") == {"_id": "x"}, "readers do not wait for a writer"
        other.execute("ROLLBACK")
        other.close()
        await documents.insert({"_id": "y"})


async def test_a_full_disk_fails_the_write_and_nothing_else(tmp_path: Path) -> None:
    async with open_embedded(tmp_path) as backend:
        documents = backend.collection("documents")
        lane = documents._lanes.writing
        await lane.run(lambda connection: _limit_pages(connection, 0))
        writes = [documents.insert({"_id": f"{n}", "value": "x" * n}) for n in (1, 90_000, 2)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), StoreDown, type(None)]
        assert "the disk is full" in str(outcomes[1])
        await lane.run(lambda connection: _limit_pages(connection, 10_000))
        await documents.insert({"_id": "3", "value": "x" * 90_000})
        assert await documents.count({}) == 3


def _limit_pages(connection: sqlite3.Connection, more: int) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + more}")


@pytest.mark.parametrize("name", ["SQLITE_IOERR_READ", "SQLITE_CORRUPT", "SQLITE_MISUSE", None])
def test_any_failure_of_sqlite_has_words(name: str | None) -> None:
    error = sqlite3.OperationalError("it broke")
    if name is not None:
        error.sqlite_errorname = name
    assert "it broke" in store_down(error).message


# Layout ----------------------------------------------------------------------------------------


async def test_records_move_when_the_declared_indexes_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"_id": "x", "project": "p", "name": "a", "when": datetime(2026, 1, 1, tzinfo=UTC)}
    async with open_embedded(tmp_path) as backend:
        await backend.collection("documents").insert(record)
        before = Table("documents").name
        changed = {**COLLECTIONS, "documents": (Index(("project", "when")),)}
        monkeypatch.setattr("machina.store.indexes.COLLECTIONS", changed)
        monkeypatch.setattr("machina.store.tables.COLLECTIONS", changed)
        assert Table("documents").name != before
        async with open_embedded(tmp_path) as newer:
            moved = newer.collection("documents")
            assert await moved.find({"when": record["when"]}) == [record]
        with pytest.raises(StoreDown, match="no such table"):
            await backend.collection("documents").insert({"_id": "y"})


async def test_indexes_alone_can_change_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_embedded(tmp_path) as backend:
        await backend.collection("documents").insert({"_id": "x", "project": "p", "name": "a"})
    changed = {**COLLECTIONS, "documents": (Index(("project", "name"), unique=True),)}
    monkeypatch.setattr("machina.store.tables.COLLECTIONS", changed)
    async with open_embedded(tmp_path) as backend:
        assert await backend.collection("documents").count({"name": "a"}) == 1
    file = connect(tmp_path)
    rows = file.execute("SELECT name FROM sqlite_master WHERE name LIKE 'documents%_project%'")
    assert [name.partition("_")[2].partition("_")[2] for (name,) in rows] == ["project_name_unique"]
    file.close()


def test_indexed_fields_are_top_level_fields() -> None:
    for indexes in COLLECTIONS.values():
        for index in indexes:
            assert all(key.isidentifier() for key in index.keys)
        assert len({index.name for index in indexes}) == len(indexes)


# Threads ---------------------------------------------------------------------------------------


async def test_threads_end_with_the_store(tmp_path: Path) -> None:
    async with open_embedded(tmp_path) as backend:
        documents = backend.collection("documents")
        await asyncio.gather(*(documents.find({}) for _ in range(10)), documents.get("x"))
        names = [t.name for t in threading.enumerate() if t.name.startswith("store-")]
        assert sorted(set(names)) == ["store-look", "store-scan", "store-write"]
        assert len(names) <= 4
    deadline = time.monotonic() + 2
    while any(t.name.startswith("store-") for t in threading.enumerate()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_a_store_that_was_never_read_closes(tmp_path: Path) -> None:
    async with open_embedded(tmp_path):
        pass


async def test_changes_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    commits = []

    def open_counting() -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        return connection

    lane = Lane("test", open_counting, write_jobs, threads=1, batch=8)
    started = threading.Event()
    first = asyncio.create_task(lane.run(lambda _: started.wait(5)))
    await asyncio.sleep(0)
    others = [asyncio.create_task(lane.run(partial(_insert_number, n))) for n in range(8)]
    await asyncio.sleep(0)
    started.set()
    await asyncio.gather(first, *others)
    await lane.close()
    assert len(commits) == 2


def _insert_number(number: int, connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t VALUES (?)", (number,))


async def test_closing_finishes_what_waits() -> None:
    connect = partial(sqlite3.connect, ":memory:", isolation_level=None)
    lane = Lane("test", connect, write_jobs, threads=1, batch=8)
    go_on = threading.Event()
    waiting = [asyncio.create_task(lane.run(lambda _: go_on.wait(5))) for _ in range(3)]
    await asyncio.sleep(0)
    closing = [asyncio.create_task(lane.close()) for _ in range(2)]
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*waiting) == [True, True, True]
    await asyncio.gather(*closing)
    with pytest.raises(StoreDown):
        await lane.run(lambda _: None)


async def test_a_defect_reaches_the_caller_and_is_logged_when_nobody_waits() -> None:
    lane = Lane("test", lambda: sqlite3.connect(":memory:"), read_jobs, threads=1, batch=1)
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda _: 1 / 0)
    running, go_on = threading.Event(), threading.Event()

    def fail(_: sqlite3.Connection) -> None:
        running.set()
        go_on.wait(5)
        raise ZeroDivisionError

    with capture_logs() as logs:
        task = asyncio.create_task(lane.run(fail))
        assert await asyncio.to_thread(running.wait, 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go_on.set()
        await lane.close()
    assert [entry["event"] for entry in logs] == ["store.job_failed"]


async def test_a_connection_that_cannot_roll_back_is_replaced() -> None:
    opened: list[sqlite3.Connection] = []

    def open_one() -> sqlite3.Connection:
        opened.append(sqlite3.connect(":memory:", isolation_level=None))
        return opened[-1]

    lane = Lane("test", open_one, write_jobs, threads=1, batch=8)
    with pytest.raises(StoreDown):
        await lane.run(lambda connection: connection.close())
    assert await lane.run(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
    await lane.close()
    assert len(opened) == 2


def test_a_loop_that_ended_without_closing_leaves_no_trace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def abandon() -> None:
        lane = Lane("test", lambda: sqlite3.connect(":memory:"), read_jobs, threads=1, batch=1)
        task = asyncio.create_task(lane.run(lambda _: time.sleep(0.05)))
        await asyncio.sleep(0.01)
        task.cancel()
        lanes.append(lane)

    lanes: list[Lane] = []
    asyncio.run(abandon())
    thread = next(t for t in threading.enumerate() if t.name == "store-test")
    lanes[0]._jobs.put(None)
    thread.join(5)
    assert not thread.is_alive()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Settings --------------------------------------------------------------------------------------


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MACHINA_DATA_DIR", "MONGODB_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_data_directory_wins_over_a_mongodb_url(no_environment: None, tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "data", mongodb_url="mongodb://localhost/x")

    async def open_and_close() -> None:
        async with open_backend(settings) as backend:
            assert await backend.collection("documents").count({}) == 0

    asyncio.run(open_and_close())
    assert (tmp_path / "data" / FILE_NAME).exists()


def test_no_store_at_all_is_refused_with_a_remedy(no_environment: None) -> None:
    with pytest.raises(SettingsInvalid, match=r"--data-dir .* MONGODB_URL"):
        open_backend(load_settings())


async def test_the_facade_bundles_the_repositories(settings: Settings) -> None:
    async with open_store(settings) as store:
        assert await store.definitions.search("p", "agent", {}) == ([], 0)
        assert await store.documents.search("p", {}) == ([], 0)
        assert await store.keys.list("p") == []
        assert await store.leases.workers() == []
        assert await store.now() <= await store.backend.now()
