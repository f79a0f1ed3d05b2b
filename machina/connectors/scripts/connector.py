"""The connector `pyscript`: a Python function in a process that is shut in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.redacting import redactor_for
from machina.connectors.scripts import answer
from machina.connectors.scripts.children import Child, Children
from machina.connectors.scripts.choosing import choose
from machina.connectors.scripts.directories import RunDirectories, size_of
from machina.connectors.scripts.gate import Gate
from machina.connectors.scripts.health import describe, describe_off
from machina.connectors.scripts.interpreter import Interpreter, find_interpreter
from machina.connectors.scripts.isolation import hide_memory
from machina.connectors.scripts.nursery import NotStarted, Nursery
from machina.connectors.scripts.process import ChildEnded, TooLong
from machina.connectors.scripts.request import Script
from machina.egress import EgressClient
from machina.errors import ConnectorFailed
from machina.settings import Settings

log = structlog.get_logger(__name__)

CHECK_SECONDS: Final = 0.5
"""How often the directory of a run is counted while one of its scripts runs."""
LOGGED_CHARACTERS: Final = 4_000


class ScriptConnector:
    """Runs the scripts of connectors. Opened by `open_scripts`, once per worker process."""

    def __init__(
        self,
        settings: Settings,
        directories: RunDirectories,
        interpreter: Interpreter,
        children: Children,
        told: Mapping[str, Any],
    ) -> None:
        self._settings = settings
        self._directories = directories
        self._interpreter = interpreter
        self._children = children
        self._told = told

    async def call(self, call: ConnectorCall) -> ConnectorReply:
        """Executes the function `command` of the connector's script.

        Raises:
            ConnectorFailed: see `connectors.base.Connector`.
        """
        script = Script.of(call)
        order = await asyncio.to_thread(script.order, call)
        try:
            async with self._children.lend((call.run_id, script.digest)) as child:
                told = await self._ask(call, child, order)
                reply = await asyncio.to_thread(
                    answer.read_answer, call, told, str(self._interpreter.path)
                )
        except NotStarted as error:
            log.error("script.not_started", connector=call.name, error=str(error))
            raise ConnectorFailed(
                f"The script of the connector '{call.name}', called by {call.where}, could not be "
                "started; the log of the worker says why."
            ) from error
        return reply

    def directory(self, run_id: str) -> Path:
        """Where the scripts of a run keep their files; it exists once one has run.

        Raises:
            ValueError: the id could not be the name of a directory.
        """
        return self._directories.path(run_id)

    async def forget(self, run_id: str) -> None:
        """Ends the processes of a run and removes its directory.

        Not while another attempt may go on with the run: it needs the files.
        """
        await self._children.forget(run_id)
        await asyncio.to_thread(self._directories.forget, run_id)

    async def leave(self, run_id: str) -> None:
        """Ends the processes that wait for the next call of a run; its directory stays."""
        await self._children.forget_idle(run_id)

    def describe(self) -> dict[str, Any]:
        """Level, network, limits, and what they do not stop."""
        return dict(self._told)

    async def aclose(self) -> None:
        """Ends all processes."""
        await self._children.aclose()

    async def _ask(self, call: ConnectorCall, child: Child, order: bytes) -> Any:
        """What the child says to the call; it may be used again if it returned.

        Raises:
            ConnectorFailed: it took more than it may, or ended without an answer.
        """
        child.process.send(order)
        try:
            told = await self._await_answer(call, child)
        except ChildEnded as ended:
            raise answer.died(call, ended.code) from ended
        except TooLong as error:
            raise answer.limit(call, "bytes in its answer", "MACHINA_SCRIPT_REPLY_BYTES") from error
        finally:
            self._log_output(call, child)
        if isinstance(told, dict) and told.get("traceback"):
            trace = redactor_for(call).text(str(told["traceback"])[-LOGGED_CHARACTERS:])
            log.info("script.raised", connector=call.name, command=call.command, exception=trace)
        child.is_reusable = isinstance(told, dict) and told.get("kind") == "returned"
        return told

    async def _await_answer(self, call: ConnectorCall, child: Child) -> Any:
        seconds = self._settings.script_seconds
        if call.timeout_seconds is not None:
            seconds = min(seconds, call.timeout_seconds)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            left = deadline - loop.time()
            if left <= 0:
                child.process.kill()
                raise answer.timed_out(call, seconds)
            try:
                told = await child.process.receive(min(left, CHECK_SECONDS))
            except TimeoutError:
                await self._check_directory(call, child)
                continue
            await self._check_directory(call, child)
            return told

    async def _check_directory(self, call: ConnectorCall, child: Child) -> None:
        most = self._settings.script_directory_bytes
        directory = self._directories.path(call.run_id)
        if await asyncio.to_thread(size_of, directory, enough=most) > most:
            child.process.kill()
            raise answer.limit(
                call, "room in the directory of its run", "MACHINA_SCRIPT_DIRECTORY_BYTES"
            )

    def _log_output(self, call: ConnectorCall, child: Child) -> None:
        text, truncated = child.process.output.take()
        if text:
            shown = redactor_for(call).text(text[:LOGGED_CHARACTERS])
            log.debug(
                "script.printed",
                connector=call.name,
                command=call.command,
                output=shown,
                characters=len(text),
                truncated=truncated,
            )


class ScriptsOff:
    """Stands where scripts would run, and says how to switch them on."""

    async def call(self, call: ConnectorCall) -> ConnectorReply:
        """Refuses.

        Raises:
            ConnectorFailed: always, with `scripts_disabled`.
        """
        raise ConnectorFailed(
            f"The connector '{call.name}' of {call.where} is a Python script, and scripts are "
            "switched off on this server; its operator can set MACHINA_SCRIPTS=on.",
            code="scripts_disabled",
        )

    def directory(self, run_id: str) -> None:
        """No run has one."""

    async def forget(self, run_id: str) -> None:
        """There is nothing of the run."""

    async def leave(self, run_id: str) -> None:
        """There is nothing of the run."""

    def describe(self) -> dict[str, Any]:
        """That they are off."""
        return describe_off()


@asynccontextmanager
async def open_scripts(settings: Settings) -> AsyncIterator[ScriptConnector | ScriptsOff]:
    """Chooses the isolation, and ends all scripts when it closes.

    Raises:
        SettingsInvalid: the interpreter or the isolation of the settings is not to be had here.
    """
    if not settings.runs_scripts:
        yield ScriptsOff()
        return
    interpreter = await asyncio.to_thread(find_interpreter, settings.script_python)
    directories = RunDirectories(settings)
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(directories.open)
        stack.push_async_callback(asyncio.to_thread, directories.close)
        client = EgressClient.from_settings(settings)
        stack.push_async_callback(client.aclose)
        gate = Gate(client.check)
        if settings.script_network == "on":
            await gate.open()
        stack.push_async_callback(gate.aclose)
        nursery = Nursery(settings, interpreter, directories, gate)
        stack.push_async_callback(asyncio.to_thread, nursery.close)
        nursery.isolation, refused = await choose(settings, nursery, directories)
        told = describe(settings, nursery.isolation, str(interpreter.path), refused)
        _log_choice(told)
        if nursery.isolation.level == 1:
            stack.callback(hide_memory())
        children = Children(nursery.start, limit=settings.script_children)
        scripts = ScriptConnector(settings, directories, interpreter, children, told)
        stack.push_async_callback(scripts.aclose)
        yield scripts


def _log_choice(told: Mapping[str, Any]) -> None:
    write = log.warning if told["level"] == 1 else log.info
    write("script.isolation", level=told["level"], name=told["name"], network=told["network"])
