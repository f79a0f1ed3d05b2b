"""Runs child processes: starts them, restarts those that die, stops them all, tells the truth.

Children live in sessions of their own, so that a Ctrl-C in the terminal reaches only the supervisor
(and through `uv run` twice). A child calls `die_with_parent` first, so that it also ends when the
supervisor is killed.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import structlog

log = structlog.get_logger(__name__)

PARENT_VARIABLE: Final = "MACHINA_PARENT_PID"
"""Tells a child who its supervisor is; not a setting."""
QUICK_SECONDS: Final = 2.0
"""A child that ends sooner than this did not start."""
REFUSALS: Final = 2
UNUSABLE: Final = 2
"""The exit code of a process whose settings are wrong: it will not get better by waiting."""
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0
WELL_SECONDS: Final = 10.0
LONGEST_WAIT_SECONDS: Final = 3_600.0
"""Only a bound: signals wake the supervisor."""
DEBOUNCE_SECONDS: Final = 2.0
INTERRUPTED: Final = 130
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1
OnEnd = Callable[[str], None]


def die_with_parent(
    expected_parent: int | None = None, *, death_signal: signal.Signals = signal.SIGTERM
) -> None:
    """Has the kernel send this process a signal when its supervisor ends, however it ends.

    Call it first thing in a child, from the main thread. `expected_parent` is by default what the
    supervisor left in the environment; without either, and off Linux, nothing happens. It survives
    an `exec`, so it also serves children that are not ours.
    """
    left = os.environ.pop(PARENT_VARIABLE, None)
    inherited = int(left) if left and left.isdigit() else None
    parent = expected_parent if expected_parent is not None else inherited
    if parent is None or sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(death_signal)) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), death_signal)


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running. Lower stages stop after higher ones have ended."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's own environment."""
    stage: int = 0


def machina_child(name: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Child:
    """A child that runs a command of `machina-server`."""
    return Child(name, (sys.executable, "-m", "machina", *arguments), environ or {})


def supervise(
    children: Sequence[Child], *, grace_seconds: float, on_end: OnEnd | None = None
) -> int:
    """Runs the children until SIGTERM, SIGINT or SIGHUP; call it from the main thread.

    The signal is passed on once, as SIGTERM. Its repetition within two seconds is ignored, a later
    one kills. What is alive `grace_seconds` after its SIGTERM is killed, with everything it
    started. `on_end` is told the name of each child that has ended, before it starts again.

    Returns:
        0 after a clean stop; the exit code of a child that twice in a row did not start, or that
        failed while stopping; 1 if something had to be killed, 130 if the user killed it.
    """
    with _listen() as bell:
        return _Supervision(children, grace_seconds, bell, on_end).run()


@dataclass(slots=True)
class _Slot:
    """One child and what has become of it."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    refusals: int = 0
    pause: float = FIRST_PAUSE_SECONDS
    restart_at: float | None = None
    kill_at: float | None = None


@dataclass(slots=True)
class _Bell:
    """Signals that arrived, and a socket that becomes readable with each."""

    receiver: socket.socket
    arrived: deque[tuple[signal.Signals, float]]

    def wait(self, seconds: float) -> None:
        readable, _, _ = select.select([self.receiver], [], [], max(seconds, 0.0))
        if readable:
            self.receiver.recv(4096)


@contextmanager
def _listen() -> Iterator[_Bell]:
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    arrived: deque[tuple[signal.Signals, float]] = deque(maxlen=64)

    def note(number: int, frame: FrameType | None) -> None:
        if number in _STOPPING:
            arrived.append((signal.Signals(number), time.monotonic()))

    before = {number: signal.signal(number, note) for number in (*_STOPPING, signal.SIGCHLD)}
    fd_before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield _Bell(receiver, arrived)
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        receiver.close()
        sender.close()


class _Supervision:
    def __init__(
        self,
        children: Sequence[Child],
        grace_seconds: float,
        bell: _Bell,
        on_end: OnEnd | None,
    ) -> None:
        self._slots = [_Slot(child) for child in children]
        self._grace = grace_seconds
        self._bell = bell
        self._on_end = on_end
        self._code = 0
        self._stop_began: float | None = None

    def run(self) -> int:
        for slot in self._slots:
            self._spawn(slot)
        while True:
            self._hear_signals()
            for slot in self._slots:
                self._reap(slot)
            if self._stop_began is not None:
                if not self._alive():
                    return self._code
                self._advance_stop()
            else:
                self._restart_due()
            self._bell.wait(self._until_next_deadline())

    def _spawn(self, slot: _Slot) -> None:
        child = slot.child
        slot.restart_at = None
        slot.started = time.monotonic()
        environ = os.environ | dict(child.environ) | {PARENT_VARIABLE: str(os.getpid())}
        try:
            slot.process = subprocess.Popen(  # noqa: S603  # our own commands
                child.command, env=environ, start_new_session=True
            )
        except OSError as failed:
            log.error("process.not_started", name=child.name, error=str(failed))
            self._died(slot, 127)
            return
        log.info("process.started", name=child.name, pid=slot.process.pid)

    def _reap(self, slot: _Slot) -> None:
        process = slot.process
        if process is None:
            return
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PID, process.pid, flags) is None:
            return
        # While the dead child is not collected, its pid names its group and nobody else's: what it
        # left running ends with it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        slot.process = None
        if self._on_end is not None:
            self._on_end(slot.child.name)
        if self._stop_began is None:
            self._died(slot, code)
            return
        log.info("process.stopped", name=slot.child.name, code=code)
        as_told = slot.kill_at is not None and code in (-signal.SIGTERM, 128 + signal.SIGTERM)
        if code != 0 and not as_told:
            self._code = self._code or _exit_code(code)

    def _died(self, slot: _Slot, code: int) -> None:
        lived = time.monotonic() - slot.started
        # Who was killed, or told to go, did not refuse: it is worth any number of starts.
        refused = code > 0 and (lived < QUICK_SECONDS or code == UNUSABLE)
        slot.refusals = slot.refusals + 1 if refused else 0
        if slot.refusals >= REFUSALS:
            log.error("process.refused", name=slot.child.name, **_manner(code))
            self._begin_stop(_exit_code(code))
            return
        slot.pause = FIRST_PAUSE_SECONDS if lived >= WELL_SECONDS else slot.pause
        slot.restart_at = time.monotonic() + slot.pause
        log.warning(
            "process.died", name=slot.child.name, restart_in_seconds=slot.pause, **_manner(code)
        )
        slot.pause = min(2 * slot.pause, LONGEST_PAUSE_SECONDS)

    def _restart_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.restart_at is not None and now >= slot.restart_at:
                self._spawn(slot)

    def _hear_signals(self) -> None:
        while self._bell.arrived:
            number, at = self._bell.arrived.popleft()
            if self._stop_began is None:
                log.info("process.stopping", signal=number.name)
                self._begin_stop(0)
            elif at - self._stop_began > DEBOUNCE_SECONDS:
                log.warning("process.killed_by_user", signal=number.name)
                self._code = INTERRUPTED
                for slot in self._alive():
                    slot.kill_at = 0.0

    def _begin_stop(self, code: int) -> None:
        if self._stop_began is None:
            self._stop_began = time.monotonic()
            self._code = code

    def _advance_stop(self) -> None:
        """Tells the highest stage that is alive to end, and kills what took too long."""
        now = time.monotonic()
        alive = self._alive()
        highest = max(slot.child.stage for slot in alive)
        for slot in alive:
            if slot.kill_at is None and slot.child.stage == highest:
                slot.kill_at = now + self._grace
                _send(slot, signal.SIGTERM)
            elif slot.kill_at is not None and now >= slot.kill_at:
                log.warning("process.killed", name=slot.child.name)
                self._code = self._code or 1
                slot.kill_at = float("inf")
                _kill_group(slot)

    def _alive(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.process is not None]

    def _until_next_deadline(self) -> float:
        deadlines = [slot.restart_at for slot in self._slots if slot.restart_at is not None]
        if self._stop_began is not None:
            deadlines = [slot.kill_at for slot in self._alive() if slot.kill_at is not None]
        soonest = min(deadlines, default=float("inf"))
        return min(soonest - time.monotonic(), LONGEST_WAIT_SECONDS)


def _send(slot: _Slot, number: signal.Signals) -> None:
    if slot.process is not None:
        slot.process.send_signal(number)


def _kill_group(slot: _Slot) -> None:
    if slot.process is not None:
        with suppress(ProcessLookupError):
            os.killpg(slot.process.pid, signal.SIGKILL)


def _manner(code: int) -> dict[str, object]:
    return {"signal": signal.Signals(-code).name} if code < 0 else {"code": code}


def _exit_code(code: int) -> int:
    """The code to leave with for a child's: never 0, and a signal as shells write it."""
    return 128 - code if code < 0 else code or 1
