"""The process of one script: it confines itself, then answers calls until nobody asks any more."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys

from . import confine, dialing, values
from .channel import Channel
from .loading import MARK, Modules

TYPE_CHECKING = False  # typing is slow to load, and every script waits for it
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

TRACE_CHARACTERS = 8_000
MESSAGE_CHARACTERS = 4_000


def main() -> None:
    """Standard input is the socket to the worker; the two outputs are captured there."""
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    channel = Channel(connection)
    plan = channel.receive()
    if plan is None:
        return
    try:
        confine.confine(plan)
        if plan["proxy"] is not None:
            dialing.install(**plan["proxy"])
    except Exception as error:  # noqa: BLE001  # told to the worker, which knows what to do
        channel.send(values.dump({"kind": "unconfined", "message": f"{error}"}))
        return
    channel.send(values.dump({"kind": "ready"}))
    _serve(channel, plan["reply_bytes"])


def _serve(channel: Channel, reply_bytes: int) -> None:
    modules, me = Modules(), os.getpid()
    while True:
        order = channel.receive()
        if order is None:
            return
        answer = _answer(modules, order)
        if os.getpid() != me:  # a copy that the script made of us has nothing to say
            os._exit(0)
        if len(answer) > reply_bytes:
            answer = values.dump({"kind": "raised", "reason": "size"})
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):  # the script closed or replaced it
                continue
        channel.send(answer)


def _call(modules: Modules, order: Mapping[str, Any]) -> Any:
    module = modules.load(order["digest"], order["title"], order["source"])
    function = module.__dict__.get(order["command"])
    if not callable(function):
        names = sorted(
            name
            for name, value in module.__dict__.items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        )
        raise _CommandUnknown(", ".join(names[:20]))
    return function(values.unpack(order["request"]))


class _CommandUnknown(Exception):
    """The module has no function of that name; its text lists those it has."""


def _answer(modules: Modules, order: Mapping[str, Any]) -> bytes:
    try:
        return values.encode({"kind": "returned", "value": values.pack(_call(modules, order))})
    except BaseException as error:  # noqa: BLE001  # whatever a script raises becomes an answer
        modules.show_lines()
        return values.dump(_describe(error))


def _describe(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error)[:MESSAGE_CHARACTERS]
    except Exception:  # noqa: BLE001  # an exception of the script's own making
        message = "(its text could not be made)"
    told = {"kind": "raised", "type": type(error).__name__, "message": message}
    told["reason"] = _reason(error)
    if isinstance(error, ImportError):
        told["package"] = _imported(error)
    if told["reason"] not in ("import", "exception"):
        return told
    import traceback  # noqa: PLC0415  # slow to load, and a script that goes well needs none

    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(MARK):
        trace = trace.tb_next  # our own frames are no help to the author
    lines = traceback.format_exception(type(error), error, trace)
    told["traceback"] = "".join(lines)[-TRACE_CHARACTERS:]
    return told


def _imported(error: ImportError) -> str:
    """What the script tried to import: of `google.oauth2`, the error alone names only `google`."""
    import traceback  # noqa: PLC0415  # see above

    name = str(error.name or "")
    lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)]
    statement = re.match(r"\s*(?:from|import)\s+([\w.]+)", lines[-1] if lines else "")
    written = statement[1] if statement else ""
    return written if written.startswith(f"{name}.") else name


def _reason(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return "import"
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, _CommandUnknown):
        return "command"
    if isinstance(error, values.NotData):
        return "data"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return "file"
    return "exception"
