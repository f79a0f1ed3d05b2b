"""One child process: started in a thread, spoken to over a socket, ended with all it started."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from machina.connectors.scripts.child.channel import HEADER_BYTES, frame
from machina.connectors.scripts.output import Output

log = structlog.get_logger(__name__)

END_SECONDS: Final = 5.0
"""How long a killed process may take to be gone: the kernel may have much memory to free."""
_LAST_WORDS_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.01
_GROUP_POLLS: Final = 100
_CONTROL_BYTES: Final = 4_096
"""What a frame may be longer than the limit for answers, for what is around the answer."""


class ChildEnded(Exception):
    """The process ended, or spoke nonsense; `code` as `Popen` has it, None if it still ran."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the process of the script ended with {code}")
        self.code = code


class TooLong(Exception):
    """The child announces an answer above the limit."""


@dataclass(slots=True)
class _Started:
    process: subprocess.Popen[bytes]
    connection: socket.socket
    output: int


class ChildProcess:
    """A child of this process. Whoever has it must `aclose` it; then nothing of it is left."""

    def __init__(
        self,
        started: _Started,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        output_bytes: int,
        reply_bytes: int,
    ) -> None:
        self._process = started.process
        self._reader, self._writer = reader, writer
        self._reply_bytes = reply_bytes
        self.output = Output(started.output, output_bytes)
        self._exit = asyncio.create_task(_exited(started.process))
        self._reading: asyncio.Task[Any] | None = None

    @classmethod
    async def start(
        cls,
        spawner: Executor,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        output_bytes: int,
        reply_bytes: int,
    ) -> ChildProcess:
        """Starts `command` with nothing but this environment and its socket as standard input.

        Raises:
            OSError: the command cannot be started.
        """
        loop = asyncio.get_running_loop()
        spawn = loop.run_in_executor(spawner, functools.partial(_spawn, command, environ))
        try:
            started = await asyncio.shield(spawn)
        except asyncio.CancelledError:
            spawn.add_done_callback(_discard)
            raise
        try:
            reader, writer = await asyncio.open_unix_connection(sock=started.connection)
        except BaseException:
            _discard_started(started)
            raise
        return cls(started, reader, writer, output_bytes=output_bytes, reply_bytes=reply_bytes)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs. Asks the system: word of its end may be under way to the loop."""
        return not self._exit.done() and not _has_ended(self._process.pid)

    def send(self, body: bytes) -> None:
        """Sends a frame; whether it arrives shows in the answer."""
        self._writer.write(frame(body))

    async def receive(self, timeout: float) -> Any:
        """The next frame, read as JSON; nothing about it is checked but its length.

        Raises:
            TimeoutError: none came in time; a later call goes on waiting for the same one.
            ChildEnded: it ended without one, or sent what is no frame.
            TooLong: the frame is longer than an answer may be.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        await asyncio.wait(
            {self._reading, self._exit}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if not self._reading.done() and self._exit.done():
            # What it said last may still be under way; what it left behind keeps no socket open.
            self.kill()
            await asyncio.wait({self._reading}, timeout=_LAST_WORDS_SECONDS)
            if not self._reading.done():
                raise ChildEnded(self._process.returncode)
        if not self._reading.done():
            raise TimeoutError
        reading, self._reading = self._reading, None
        if reading.cancelled():  # it was closed from elsewhere
            raise ChildEnded(self._process.returncode)
        try:
            return reading.result()
        except (asyncio.IncompleteReadError, OSError, orjson.JSONDecodeError) as broken:
            await asyncio.wait({self._exit}, timeout=_LAST_WORDS_SECONDS)
            raise ChildEnded(self._process.returncode) from broken

    def kill(self) -> None:
        """Kills it and its group at once; `aclose` waits for the end."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        """Kills what is left and waits until it is gone; a cancellation does not stop that."""
        self.kill()
        closing = asyncio.create_task(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait({closing})
            raise

    async def _close(self) -> None:
        self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        await asyncio.wait({self._exit}, timeout=END_SECONDS)
        if not self._exit.done():
            log.error("script.process_remains", pid=self._process.pid)
            self._exit.cancel()
        await _await_group_end(self._process.pid)
        # Below bubblewrap there are groups of their own; what dies there lets go of the pipe.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self.output.ended.wait()
        self.output.close()

    async def _read(self) -> Any:
        size = int.from_bytes(await self._reader.readexactly(HEADER_BYTES), "big")
        if size > self._reply_bytes + _CONTROL_BYTES:
            raise TooLong
        body = await self._reader.readexactly(size)
        return await asyncio.to_thread(orjson.loads, body) if size > 65_536 else orjson.loads(body)


def _spawn(command: Sequence[str], environ: Mapping[str, str]) -> _Started:
    ours, theirs = socket.socketpair()
    output, writing = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603  # our own command; the script comes over the socket
            command,
            stdin=theirs.fileno(),
            stdout=writing,
            stderr=writing,
            env=dict(environ),
            cwd="/",
            start_new_session=True,
            close_fds=True,
        )
    except BaseException:
        ours.close()
        os.close(output)
        raise
    finally:
        theirs.close()
        os.close(writing)
    ours.setblocking(False)
    os.set_blocking(output, False)
    return _Started(process, ours, output)


def _discard(spawn: asyncio.Future[_Started]) -> None:
    """Ends what was started for a call that was cancelled meanwhile."""
    if not spawn.cancelled() and spawn.exception() is None:
        _discard_started(spawn.result())


def _discard_started(started: _Started) -> None:
    started.connection.close()
    os.close(started.output)
    with suppress(ProcessLookupError):
        os.killpg(started.process.pid, signal.SIGKILL)
    # Its end is awaited where waiting harms nobody.
    asyncio.get_running_loop().run_in_executor(None, started.process.wait)


def _has_ended(pid: int) -> bool:
    """Whether a child of ours has ended, which is not reaped by asking; False if nobody tells."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it is reaped
        return True


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Returns when the process has ended, with its group killed before it is reaped.

    As long as the leader is not reaped, its number is not given to another group.
    """
    if hasattr(os, "pidfd_open"):
        await _pidfd_readable(os.pidfd_open(process.pid))
    else:
        await asyncio.to_thread(process.wait)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.poll()


async def _await_group_end(group: int) -> None:
    """Waits until the last killed process of a group is gone, as long as that can take."""
    for _ in range(_GROUP_POLLS):
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return
        if not await asyncio.to_thread(_has_living, group):
            return
        await asyncio.sleep(_POLL_SECONDS)


def _has_living(group: int) -> bool:
    """Whether a process of the group has not ended; who reaps the others is not our business."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False


async def _pidfd_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
