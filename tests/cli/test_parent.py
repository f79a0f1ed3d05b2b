from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import sys
from machina.cli.parent import follow_parent
follow_parent()
print("following", flush=True)
sys.stdin.read()
print("went on", flush=True)
"""


@pytest.mark.parametrize(("runner", "code"), [("uv", "ended"), ("other", "went on")])
def test_a_process_ends_with_the_uv_that_runs_it_and_with_no_other_parent(
    runner: str, code: str, tmp_path: Path
) -> None:
    # A program of that name that runs a command and waits for it, as `uv run` does.
    program = tmp_path / runner
    program.write_text('#!/bin/sh\n"$@" &\necho $!\nwait\n')
    program.chmod(0o755)
    reading, writing = os.pipe()
    parent = subprocess.Popen(
        [program, sys.executable, "-c", f"import os; os.dup2({reading}, 0)\n{CHILD}"],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[reading],
    )
    os.close(reading)
    with parent, os.fdopen(writing, "w") as hold:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "following\n"
        os.kill(parent.pid, signal.SIGKILL)
        if code == "ended":
            while Path(f"/proc/{child}").exists() and _state(child) != "Z":
                time.sleep(0.005)
        hold.close()
        assert parent.stdout.read() == ("" if code == "ended" else "went on\n")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
