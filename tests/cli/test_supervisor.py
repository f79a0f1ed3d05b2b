"""The supervisor on real processes: restarts, stops, and the exit codes it tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from machina.cli import supervisor
from machina.cli.supervisor import (
    PARENT_VARIABLE,
    Child,
    die_with_parent,
    machina_child,
    supervise,
)

UNTIL_TERM = 'trap "echo $1-ended >> $0; exit 0" TERM; echo $1 >> $0; while :; do sleep 0.02; done'
STUBBORN = 'trap "" TERM; echo $1 >> $0; while :; do sleep 0.02; done'


class Notes:
    """A file in which children note what they do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[str]:
        return self.path.read_text().split()

    def child(self, name: str, script: str, **options: Any) -> Child:
        """`script` runs in a shell with the file as $0 and the child's name as $1."""
        return Child(name, ("/bin/sh", "-c", script, str(self.path), name), **options)

    def wait_for(self, *words: str) -> None:
        deadline = time.monotonic() + 8
        while not set(words) <= set(self.lines()):
            assert time.monotonic() < deadline, f"{words} not in {self.lines()}"
            time.sleep(0.005)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@contextmanager
def beside(action: Callable[[], None]) -> Iterator[None]:
    """Runs `action` in a thread while the main thread supervises; its failure is the test's."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 -- raised again in the test's own thread
            failed.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_everything_ends_well_when_the_supervisor_is_asked_to_stop(
    notes: Notes, number: signal.Signals
) -> None:
    def act() -> None:
        notes.wait_for("a", "b")
        send(number)

    with beside(act):
        code = supervise(
            [notes.child("a", UNTIL_TERM), notes.child("b", UNTIL_TERM)], grace_seconds=5
        )
    assert code == 0
    assert sorted(notes.lines()) == ["a", "a-ended", "b", "b-ended"]


def test_the_name_of_a_child_that_ended_is_told_before_it_starts_again(notes: Notes) -> None:
    def act() -> None:
        notes.wait_for("a")
        os.kill(int(notes.lines()[0]), signal.SIGKILL)
        while notes.lines().count("a") < 2:
            time.sleep(0.005)
        told.append("a is back")
        send(signal.SIGTERM)

    told: list[str] = []
    script = 'echo $$ $1 >> $0; trap "exit 0" TERM; while :; do sleep 0.02; done'
    with beside(act):
        supervise([notes.child("a", script)], grace_seconds=5, on_end=told.append)
    assert told == ["a", "a is back", "a"]


def test_a_child_starts_again_when_it_died(notes: Notes) -> None:
    script = 'echo pid-$$ >> $0; trap "exit 0" TERM; while :; do sleep 0.02; done'

    def act() -> None:
        while len(notes.lines()) < 1:
            time.sleep(0.005)
        first = int(notes.lines()[0].removeprefix("pid-"))
        os.kill(first, signal.SIGKILL)
        while len(notes.lines()) < 2:
            time.sleep(0.005)
        send(signal.SIGTERM)

    with capture_logs() as logs, beside(act):
        assert supervise([notes.child("a", script)], grace_seconds=5) == 0
    [died] = [line for line in logs if line["event"] == "process.died"]
    assert (died["name"], died["signal"], died["restart_in_seconds"]) == ("a", "SIGKILL", 0.2)


@pytest.mark.parametrize(("script", "code"), [("exit 2", 2), ("exit 3", 3)])
def test_everything_stops_when_a_child_does_not_start_twice_in_a_row(
    notes: Notes, script: str, code: int
) -> None:
    children = [notes.child("good", UNTIL_TERM), notes.child("bad", f"echo try >> $0; {script}")]
    assert supervise(children, grace_seconds=5) == code
    assert notes.lines().count("try") == 2
    assert "good-ended" in notes.lines()


@pytest.mark.parametrize("script", ["kill -9 $$", "kill -15 $$", "exit 0"])
def test_a_child_that_was_killed_or_told_to_go_is_started_any_number_of_times(
    notes: Notes, script: str
) -> None:
    def act() -> None:
        while len(notes.lines()) < 4:
            time.sleep(0.005)
        send(signal.SIGTERM)

    # The fourth stays, so that no death of its own comes between the signal and what it means.
    tried = f'echo try >> $0; test "$(wc -l < $0)" -lt 4 || {{ {UNTIL_TERM}; }}; {script}'
    with beside(act):
        assert supervise([notes.child("a", tried)], grace_seconds=5) == 0


def test_wrong_settings_are_no_reason_to_try_for_ever_when_the_start_is_slow(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "QUICK_SECONDS", 0.0)
    children = [notes.child("bad", "echo try >> $0; exit 2")]
    assert supervise(children, grace_seconds=5) == 2
    assert notes.lines() == ["try", "try"]


def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with capture_logs() as logs:
        code = supervise([Child("gone", (str(tmp_path / "gone"),))], grace_seconds=5)
    assert code == 127
    assert "process.not_started" in [line["event"] for line in logs]


def test_a_doubled_ctrl_c_counts_as_one(notes: Notes) -> None:
    slow = 'trap "sleep 0.3; echo done >> $0; exit 0" TERM; echo up >> $0;'
    slow += "while :; do sleep 0.02; done"

    def act() -> None:
        notes.wait_for("up")
        for _ in range(3):
            send(signal.SIGINT)
            time.sleep(0.02)

    with beside(act):
        assert supervise([notes.child("a", slow)], grace_seconds=5) == 0
    assert notes.lines() == ["up", "done"]


def test_a_later_ctrl_c_kills(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "DEBOUNCE_SECONDS", 0.05)

    def act() -> None:
        notes.wait_for("a")
        send(signal.SIGINT)
        time.sleep(0.2)
        send(signal.SIGINT)

    with beside(act):
        assert supervise([notes.child("a", STUBBORN)], grace_seconds=60) == 130


def test_what_does_not_end_in_time_is_killed_with_what_it_started(notes: Notes) -> None:
    script = f"sh -c 'echo $$ >> $0; sleep 60' $0 & {STUBBORN}"

    def act() -> None:
        notes.wait_for("a")
        while len(notes.lines()) < 2:
            time.sleep(0.005)
        send(signal.SIGTERM)

    with beside(act):
        assert supervise([notes.child("a", script)], grace_seconds=0.1) == 1
    [grandchild] = [int(line) for line in notes.lines() if line != "a"]
    wait_until_gone(grandchild)


def test_what_a_dead_child_left_running_is_killed(notes: Notes) -> None:
    script = "sh -c 'echo $$ >> $0; sleep 60' $0 & sleep 0.2; exit 3"
    assert supervise([notes.child("a", script)], grace_seconds=5) == 3
    assert len(notes.lines()) == 2
    for pid in notes.lines():
        wait_until_gone(int(pid))


def test_a_child_that_fails_while_stopping_is_told(notes: Notes) -> None:
    script = 'trap "exit 7" TERM; echo $1 >> $0; while :; do sleep 0.02; done'

    def act() -> None:
        notes.wait_for("a")
        send(signal.SIGTERM)

    with beside(act):
        assert supervise([notes.child("a", script)], grace_seconds=5) == 7


def test_a_child_that_did_not_yet_heed_signals_ends_well(notes: Notes) -> None:
    def act() -> None:
        notes.wait_for("a")
        send(signal.SIGTERM)

    with beside(act):
        script = "echo $1 >> $0; exec sleep 60"
        assert supervise([notes.child("a", script)], grace_seconds=5) == 0


def test_lower_stages_end_after_higher_ones(notes: Notes) -> None:
    slow = 'trap "sleep 0.2; echo $1-ended >> $0; exit 0" TERM; echo $1 >> $0;'
    slow += "while :; do sleep 0.02; done"

    def act() -> None:
        notes.wait_for("redis", "api", "worker")
        send(signal.SIGTERM)

    children = [
        notes.child("redis", UNTIL_TERM),
        notes.child("api", slow, stage=1),
        notes.child("worker", UNTIL_TERM, stage=1),
    ]
    with beside(act):
        assert supervise(children, grace_seconds=5) == 0
    assert notes.lines()[3:] == ["worker-ended", "api-ended", "redis-ended"]


def test_children_have_sessions_of_their_own_and_know_their_parent(notes: Notes) -> None:
    script = f'echo ${PARENT_VARIABLE} $$ $(cut -d" " -f6 /proc/$$/stat) $MORE >> $0;'
    script += 'trap "exit 0" TERM; while :; do sleep 0.02; done'

    def act() -> None:
        notes.wait_for("word")
        send(signal.SIGTERM)

    with beside(act):
        child = notes.child("a", script, environ={"MORE": "word"})
        assert supervise([child], grace_seconds=5) == 0
    parent, pid, session, _ = notes.lines()
    assert parent == str(os.getpid())
    assert session == pid


def test_signal_handlers_are_as_before_when_supervision_ends(notes: Notes) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)]
    supervise([notes.child("bad", "exit 2")], grace_seconds=5)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)] == before


def test_a_command_of_ours_runs_under_the_same_interpreter() -> None:
    child = machina_child("worker-1", "worker", "--threads", "7", environ={"A": "b"})
    assert child.command == (sys.executable, "-m", "machina", "worker", "--threads", "7")
    assert child.environ == {"A": "b"}


FOLLOWER = """
import sys, time
from machina.cli.supervisor import die_with_parent
die_with_parent()
open(sys.argv[1], "a").write("following\\n")
time.sleep(60)
"""
LEADER = """
import sys
from machina.cli.supervisor import Child, supervise
child = Child("follower", (sys.executable, "-c", {follower!r}, sys.argv[1]))
sys.exit(supervise([child], grace_seconds=5))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux")
def test_children_end_when_the_supervisor_is_killed(notes: Notes) -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER.format(follower=FOLLOWER), str(notes.path)],
        stdout=subprocess.DEVNULL,
    )
    notes.wait_for("following")
    [follower] = Path(f"/proc/{leader.pid}/task/{leader.pid}/children").read_text().split()
    leader.kill()
    leader.wait()
    wait_until_gone(int(follower))


@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux")
def test_a_child_ends_at_once_when_its_parent_is_gone_already() -> None:
    code = "from machina.cli.supervisor import die_with_parent; die_with_parent(1 << 22); print(1)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, b"")


@pytest.mark.parametrize("left", [None, "nonsense"])
def test_a_process_without_a_supervisor_follows_nobody(
    monkeypatch: pytest.MonkeyPatch, left: str | None
) -> None:
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    if left is not None:
        monkeypatch.setenv(PARENT_VARIABLE, left)
    die_with_parent()
    assert PARENT_VARIABLE not in os.environ


def wait_until_gone(pid: int) -> None:
    """A killed process needs a moment to die."""
    deadline = time.monotonic() + 5
    while not is_gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is alive"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that waits for its parent to collect it counts."""
    with suppress(FileNotFoundError, ProcessLookupError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z"
    return True


def test_supervising_nothing_is_over_when_asked_to_stop() -> None:
    children: Sequence[Child] = []
    threading.Timer(0.05, send, (signal.SIGTERM,)).start()
    assert supervise(children, grace_seconds=1) == 0
