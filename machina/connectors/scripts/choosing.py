"""Chooses how scripts are shut in: the highest level that was tried on this machine and held."""

from __future__ import annotations

import asyncio
import errno
from typing import Any, Final

import structlog

from machina.connectors.scripts.child.values import dump
from machina.connectors.scripts.directories import RunDirectories
from machina.connectors.scripts.isolation import Isolation, candidates, what_is_missing
from machina.connectors.scripts.nursery import NotStarted, Nursery
from machina.connectors.scripts.process import ChildEnded, TooLong
from machina.errors import SettingsInvalid
from machina.settings import Settings

log = structlog.get_logger(__name__)

LEVELS: Final = (3, 2, 1)
_PROBE_RUN: Final = "probe"
_PROBE_SECONDS: Final = 20.0
_PROBE_SOURCE: Final = """
import os
import socket
import colorsys  # nothing else imports it: the library can be read after the door was shut

def can(path):
    try:
        return bool(os.listdir(path))
    except OSError:
        return False

def dial():
    try:
        connection = socket.socket()
    except OSError as error:
        return error.errno
    with connection:
        return socket.socket.__base__.connect_ex(connection, ("127.0.0.1", 9))

def probe(request):
    place = os.environ["MACHINA_WORK_DIR"]
    with open(os.path.join(place, "probe"), "w") as file:
        file.write(colorsys.__name__)
    os.unlink(os.path.join(place, "probe"))
    return {"root": can("/"), "var": can("/var"), "dialled": dial(),
            "alone": can("/proc/1") and os.getpid() < 10}
"""
"""Writes into its directory, imports, and looks where it must not see anything."""


async def choose(
    settings: Settings, nursery: Nursery, directories: RunDirectories
) -> tuple[Isolation, dict[int, str]]:
    """The isolation to use, and why each higher level is not to be had.

    Raises:
        SettingsInvalid: the level of the settings is not to be had, or production would get
            level 1 without having asked for it.
    """
    wanted = settings.script_sandbox
    refused: dict[int, str] = {}
    for level in LEVELS if wanted == "auto" else (int(wanted),):
        found = await _try_level(level, settings, nursery, directories, refused)
        if found is None:
            continue
        if found.level == 1 and settings.environment == "production" and wanted != "1":
            break
        return found, {higher: why for higher, why in refused.items() if higher > found.level}
    reasons = "; ".join(f"level {level}: {reason}" for level, reason in refused.items())
    if wanted != "auto":
        raise SettingsInvalid(
            f"MACHINA_SCRIPT_SANDBOX={wanted}: this machine does not offer it ({reasons}). Name a "
            "lower level, or `auto`."
        )
    raise SettingsInvalid(
        f"MACHINA_SCRIPTS=on: this machine cannot shut scripts in ({reasons}). Install bubblewrap, "
        "or set MACHINA_SCRIPT_SANDBOX=1 to run them with limits only, which lets them read what "
        "the worker can read."
    )


async def _try_level(
    level: int,
    settings: Settings,
    nursery: Nursery,
    directories: RunDirectories,
    refused: dict[int, str],
) -> Isolation | None:
    missing = await asyncio.to_thread(what_is_missing, level)
    if missing is not None:
        refused[level] = missing
        return None
    network = settings.script_network
    gate_port = nursery.gate_port if network == "on" else None
    for way in candidates(level, network=network != "off", gate_port=gate_port):
        directories.other_uid = way.other_uid
        run_id = f"{_PROBE_RUN}-{directories.token}"
        try:
            reason = await _probe(nursery, way, run_id)
        finally:
            await asyncio.to_thread(directories.forget, run_id)
        if reason is None:
            return way
        log.info("script.isolation_refused", level=level, other_uid=way.other_uid, reason=reason)
        refused[level] = reason
    return None


async def _probe(nursery: Nursery, way: Isolation, run_id: str) -> str | None:
    """Why it does not work; None when it does and holds."""
    try:
        process = await nursery.start_as(way, run_id)
    except NotStarted as error:
        return str(error)
    order = {"digest": "probe", "title": "probe", "source": _PROBE_SOURCE, "command": "probe"}
    try:
        process.send(dump({**order, "request": {}}))
        told = await process.receive(_PROBE_SECONDS)
    except (ChildEnded, TooLong, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        await process.aclose()
    if not isinstance(told, dict) or told.get("kind") != "returned":
        return str(told.get("message") if isinstance(told, dict) else told)[:300]
    return _what_leaks(way, told.get("value"))


def _what_leaks(way: Isolation, seen: Any) -> str | None:
    if not isinstance(seen, dict):
        return "the probe answered nonsense"
    if way.level == 2 and (seen.get("root") or seen.get("var")):
        return "Landlock was set, yet the file system stayed open"
    if way.level == 3 and (seen.get("var") or not seen.get("alone")):
        return "bubblewrap ran, yet the file system or the processes stayed visible"
    if way.gate_port is not None and seen.get("dialled") != errno.EACCES:
        return "Landlock was set, yet every port could be connected to"
    if not way.network and way.filtered and seen.get("dialled") != errno.EPERM:
        return "system calls were filtered, yet there were sockets"
    return None
