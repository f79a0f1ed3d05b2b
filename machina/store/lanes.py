"""Threads that hold SQLite connections, so that no statement ever runs on the event loop.

A lane takes jobs in order of arrival. One that batches has one thread and takes all jobs that wait
at once: the writing lane commits them in one transaction. What waits in a lane is what callers
await, so callers bound it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from machina.errors import MachinaError, StoreDown

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Any]
Connect = Callable[[], sqlite3.Connection]
MAX_BATCH: Final = 32
"""Jobs in one transaction: other processes wait no longer than these take."""


class _Job(NamedTuple):
    work: Work
    answer: asyncio.Future[Any]


class _Answered(NamedTuple):
    answer: asyncio.Future[Any]
    result: Any
    error: Exception | None


Execute = Callable[[sqlite3.Connection, Sequence[_Job]], list[_Answered]]


class Lane:
    """Up to `threads` threads that run jobs, each on a connection of its own.

    Belongs to the event loop it was made on. Threads start when they are needed.
    """

    def __init__(
        self, name: str, connect: Connect, execute: Execute, *, threads: int, batch: int
    ) -> None:
        self._name = name
        self._connect = connect
        self._execute = execute
        self._most = threads
        self._batch = batch
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._started = 0
        self._open = 0
        self._closed: asyncio.Future[None] | None = None

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """The result of `work`, run on a thread with its connection. Its errors are raised here.

        Raises:
            StoreDown: SQLite could not do it, or the lane is closed.
        """
        if self._closed is not None:
            raise StoreDown("The store is closed.")
        answer: asyncio.Future[Result] = self._loop.create_future()
        if self._open >= self._started and self._started < self._most:
            threading.Thread(target=self._serve, name=f"store-{self._name}", daemon=True).start()
            self._started += 1
        self._open += 1
        self._jobs.put(_Job(work, answer))
        return await answer

    async def close(self) -> None:
        """Finishes what waits, closes the connections and ends the threads."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            if not self._started:
                self._closed.set_result(None)
            for _ in range(self._started):
                self._jobs.put(None)
        await asyncio.shield(self._closed)

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        while (jobs := self._take()) is not None:
            try:
                connection = connection or self._connect()
                answers = self._execute(connection, jobs)
            except Exception as error:  # noqa: BLE001  # raised where the jobs are awaited
                answers = [_Answered(job.answer, None, _named(error)) for job in jobs]
                _discard(connection)
                connection = None
            self._call(self._deliver, answers)
        if connection is not None:
            connection.close()
        self._call(self._ended)

    def _take(self) -> list[_Job] | None:
        job = self._jobs.get()
        if job is None:
            return None
        jobs = [job]
        while len(jobs) < self._batch and not self._jobs.empty():
            job = self._jobs.get()  # a lane that batches has one thread: nobody else took it
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return jobs

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed, and nobody waits any more
            return

    def _deliver(self, answers: Sequence[_Answered]) -> None:
        self._open -= len(answers)
        for answer, result, error in answers:
            if answer.done():  # cancelled meanwhile
                if error is not None and not isinstance(error, MachinaError):
                    log.error("store.job_failed", error=repr(error))
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

    def _ended(self) -> None:
        self._started -= 1
        if self._started == 0 and self._closed is not None and not self._closed.done():
            self._closed.set_result(None)


def read_jobs(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> list[_Answered]:
    """Runs jobs that write nothing; each statement sees its own moment."""
    return [_attempt(connection, job) for job in jobs]


def write_jobs(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> list[_Answered]:
    """Runs jobs in one transaction, or each in its own when one of them spoils the common one."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return [_Answered(job.answer, None, _named(error)) for job in jobs]
    answers = []
    for job in jobs:
        before = connection.total_changes
        answered = _attempt(connection, job)
        half_done = answered.error is not None and connection.total_changes != before
        if half_done or isinstance(answered.error, StoreDown):
            return _write_apart(connection, jobs, answered)
        answers.append(answered)
    failed = _commit(connection)
    if failed is None:
        return answers
    return _write_apart(connection, jobs, _Answered(jobs[0].answer, None, failed))


def _write_apart(
    connection: sqlite3.Connection, jobs: Sequence[_Job], spoiled: _Answered
) -> list[_Answered]:
    """Takes a transaction back and runs its jobs one by one; a single job keeps its error."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    if len(jobs) == 1:
        return [spoiled]
    return [answered for job in jobs for answered in write_jobs(connection, [job])]


def _commit(connection: sqlite3.Connection) -> StoreDown | None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        return store_down(error)
    return None


def _attempt(connection: sqlite3.Connection, job: _Job) -> _Answered:
    if job.answer.cancelled():
        return _Answered(job.answer, None, None)
    try:
        return _Answered(job.answer, job.work(connection), None)
    except Exception as error:  # noqa: BLE001  # raised where the job is awaited
        return _Answered(job.answer, None, _named(error))


def _discard(connection: sqlite3.Connection | None) -> None:
    """Closes a connection that could not even take back a transaction."""
    if connection is not None:
        connection.close()


def _named(error: Exception) -> Exception:
    return store_down(error) if isinstance(error, sqlite3.Error) else error


_REMEDIES: Final = {
    "SQLITE_BUSY": "another process kept it locked; look for one that hangs",
    "SQLITE_FULL": "the disk is full; free some space",
    "SQLITE_READONLY": "it may not be written; check the rights of the data directory",
    "SQLITE_CANTOPEN": "it cannot be opened; check that the data directory exists and its rights",
    "SQLITE_IOERR": "the disk failed; see the system log",
    "SQLITE_CORRUPT": "it is damaged; restore a copy",
    "SQLITE_NOTADB": "it is not a database; move it away or restore a copy",
}


def store_down(error: sqlite3.Error) -> StoreDown:
    """The error for what SQLite could not do, with what to do about it."""
    name = getattr(error, "sqlite_errorname", None) or ""
    remedy = next((text for key, text in _REMEDIES.items() if name.startswith(key)), name)
    return StoreDown(f"The store's file failed: {error} ({remedy or type(error).__name__}).")
