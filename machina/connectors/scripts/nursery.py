"""Starts children: the run's directory, the isolation's command and plan, and a first word back."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import orjson

from machina.connectors.scripts.directories import RunDirectories
from machina.connectors.scripts.gate import Gate
from machina.connectors.scripts.interpreter import Interpreter
from machina.connectors.scripts.isolation import Isolation
from machina.connectors.scripts.process import ChildEnded, ChildProcess, TooLong
from machina.settings import Settings

OUTPUT_BYTES: Final = 1024 * 1024
"""What is kept of what one call prints."""
_START_SECONDS: Final = 20.0
_SPAWNERS: Final = 4


class NotStarted(Exception):
    """No child could be had; the text says why, for the log and for the operator."""


class Nursery:
    """Starts children with the isolation that `isolation` says at the time."""

    def __init__(
        self,
        settings: Settings,
        interpreter: Interpreter,
        directories: RunDirectories,
        gate: Gate,
    ) -> None:
        self._settings = settings
        self._interpreter = interpreter
        self._directories = directories
        self._gate = gate
        # Threads of our own that live as long as we do: a child's tie to its parent is one to the
        # thread that started it.
        self._spawner = ThreadPoolExecutor(_SPAWNERS, thread_name_prefix="script")
        self.isolation = Isolation(1)

    @property
    def gate_port(self) -> int:
        """Where the way out is."""
        return self._gate.port

    async def start(self, run_id: str) -> ChildProcess:
        """A child for this run, confined and waiting for calls.

        Raises:
            NotStarted: the machine does not give what the isolation needs, or the disk is full.
        """
        return await self.start_as(self.isolation, run_id)

    async def start_as(self, isolation: Isolation, run_id: str) -> ChildProcess:
        """The same with an isolation that is only tried."""
        try:
            command, environ, plan = await asyncio.to_thread(self._prepare, isolation, run_id)
            process = await ChildProcess.start(
                self._spawner,
                command,
                environ,
                output_bytes=OUTPUT_BYTES,
                reply_bytes=self._settings.script_reply_bytes,
            )
        except OSError as error:
            raise NotStarted(f"{error}") from error
        try:
            process.send(plan)
            await _await_ready(process)
        except BaseException:
            await process.aclose()
            raise
        return process

    def _prepare(
        self, isolation: Isolation, run_id: str
    ) -> tuple[list[str], dict[str, str], bytes]:
        """Command, environment and plan for a child of a run, whose directory is then there."""
        directory, uid = self._directories.claim(run_id)
        environ = self._environ(isolation, directory)
        plan = isolation.plan(self._settings, self._interpreter, directory, uid)
        guarded = isolation.gate_port is not None
        plan["proxy"] = {"port": self._gate.port, "token": self._gate.token} if guarded else None
        command = isolation.command(self._interpreter, directory)
        return command, environ, orjson.dumps(plan)

    def _environ(self, isolation: Isolation, directory: Path) -> dict[str, str]:
        """All the variables that a script sees."""
        given = {name: os.environ[name] for name in self._settings.script_env if name in os.environ}
        proxy: dict[str, str] = {}
        if isolation.gate_port is not None:
            proxy = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), self._gate.url)
        place = str(directory)
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "USER": "script",
            "HOME": place,
            "TMPDIR": place,
            # One thread each: their tables would take the address space of many.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
            **proxy,
            **given,
            "MACHINA_WORK_DIR": place,
        }

    def close(self) -> None:
        """Ends the threads. Call it when all children are gone; blocking."""
        self._spawner.shutdown()


async def _await_ready(process: ChildProcess) -> None:
    try:
        first = await process.receive(_START_SECONDS)
    except (ChildEnded, TooLong, TimeoutError) as error:
        said, _ = process.output.take()
        last = said.strip().splitlines()[-1:] or [f"{type(error).__name__}: {error}"]
        raise NotStarted(last[0][:500]) from error
    if not isinstance(first, dict) or first.get("kind") != "ready":
        reason = first.get("message") if isinstance(first, dict) else None
        raise NotStarted(str(reason or "it answered nonsense")[:500])
