"""What a hostile script tries, at each level of isolation, and what it gets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog.testing

from machina.connectors.scripts import ScriptConnector
from tests.connectors.scripting import RUN, body, failure, opened, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "canary-7f3a91"
LIMITS = {
    "script_cpu_seconds": 1,
    "script_memory_bytes": 512 * 1024 * 1024,
    "script_file_bytes": 1024 * 1024,
    "script_directory_bytes": 4 * 1024 * 1024,
    "script_processes": 12,
    "script_open_files": 64,
    "script_reply_bytes": 256 * 1024,
    "script_seconds": 4,
}


def attempt(*lines: str) -> str:
    """A script that says `held` when the system refuses what it tries, else what it got."""
    tries = "\n".join(f"        {line}" for line in lines)
    return (
        "import os, socket, ctypes\n"
        "def run(request):\n"
        "    try:\n"
        f"{tries}\n"
        "    except OSError as error:\n"
        "        return {'status': True, 'data': 'held'}\n"
        "    return {'status': True, 'data': got}\n"
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["3", "2", "1"])
async def scripts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ScriptConnector]:
    os.environ["MACHINA_TEST_CANARY"] = CANARY
    place = tmp_path_factory.mktemp(f"level{request.param}")
    try:
        async with opened(place, script_sandbox=request.param, **LIMITS) as connector:
            yield connector
    finally:
        del os.environ["MACHINA_TEST_CANARY"]


def taken_away(places: list[str]) -> list[str]:
    """Those of the files that were there; they are gone now."""
    found = [Path(place) for place in places if Path(place).exists()]
    for path in found:
        path.unlink()
    return [str(path) for path in found]


def level_of(scripts: ScriptConnector) -> int:
    return int(scripts.describe()["level"])


async def test_the_environment_holds_nothing_but_what_a_script_needs(
    scripts: ScriptConnector,
) -> None:
    names = await run(scripts, body("import os", "return {'status': True, 'data': [*os.environ]}"))
    assert set(names) <= {
        "PATH", "LANG", "USER", "HOME", "TMPDIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
        "MALLOC_ARENA_MAX", "MACHINA_WORK_DIR", "LC_CTYPE", "PWD", "https_proxy", "HTTPS_PROXY",
    }  # fmt: skip


async def test_no_descriptor_of_the_worker_is_open(scripts: ScriptConnector) -> None:
    source = body(
        "import os, stat",
        "found = []",
        "for fd in range(3, 60):",
        "    try: found.append(stat.S_IFMT(os.fstat(fd).st_mode))",
        "    except OSError: pass",
        "return {'status': True, 'data': [len(found), found == [stat.S_IFSOCK]]}",
    )
    assert await run(scripts, source) == [1, True]


async def test_the_password_file_is_not_read(scripts: ScriptConnector) -> None:
    got = await run(scripts, attempt("got = open('/etc/shadow').read(4)"))
    told = " ".join(scripts.describe()["not_stopped"])
    assert got == "held" or ("read every file" in told and level_of(scripts) == 1)


async def test_nothing_of_the_workers_process_is_read(scripts: ScriptConnector) -> None:
    source = body(
        "got = []",
        "for name in ('environ', 'mem', 'maps', 'auxv', 'stack', 'root/etc/shadow'):",
        f"    try: got.append(open(f'/proc/{os.getpid()}/{{name}}', 'rb').read(9).hex())",
        "    except OSError: pass",
        "return {'status': True, 'data': got}",
    )
    assert await run(scripts, source) == []


async def test_no_environment_of_any_process_holds_the_canary(scripts: ScriptConnector) -> None:
    source = body(
        "import glob",
        "found = 0",
        "for path in glob.glob('/proc/[0-9]*/environ'):",
        "    try: found += b'canary' in open(path, 'rb').read()",
        "    except OSError: pass",
        "return {'status': True, 'data': found}",
    )
    assert await run(scripts, source) == 0


async def test_the_files_of_other_runs_are_not_seen(scripts: ScriptConnector) -> None:
    other = "65f0000000000000000000ff"
    keep = body(
        "import os",
        "open(os.environ['MACHINA_WORK_DIR'] + '/kept', 'w').write('private')",
        "return {'status': True}",
    )
    await run(scripts, keep, run_id=other)
    assert (scripts.directory(other) / "kept").read_text() == "private"
    got = await run(scripts, attempt(f"got = open('{scripts.directory(other)}/kept').read()"))
    assert got == "held" or level_of(scripts) == 1
    await scripts.forget(other)


async def test_nothing_is_written_outside_the_directory_of_the_run(
    scripts: ScriptConnector, tmp_path: Path
) -> None:
    places = ["/etc/machina-canary", "/usr/machina-canary", str(tmp_path / "canary")]
    source = body(
        "import os",
        "got = []",
        "for place in request['params']['places']:",
        "    try: got.append(open(place, 'w').write('x'))",
        "    except OSError: pass",
        "return {'status': True, 'data': got}",
    )
    got = await run(scripts, source, inputs={"places": places})
    arrived = taken_away(places)
    if level_of(scripts) == 1:
        assert any("write wherever" in line for line in scripts.describe()["not_stopped"])
    else:
        assert (got, arrived) == ([], [])


async def test_the_parent_is_not_killed(scripts: ScriptConnector) -> None:
    source = attempt(
        "os.kill(int(request['params']['pid']), 0)",
        "os.kill(os.getppid() if os.getppid() > 1 else 10**6, 0)",
        "got = 'reached'",
    )
    got = await run(scripts, source, inputs={"pid": os.getpid()})
    told = " ".join(scripts.describe()["not_stopped"])
    assert got == "held" or "send it signals" in told


BACK_DOORS = {
    "ptrace": "libc.ptrace(16, os.getppid(), 0, 0)",
    "unshare": "libc.unshare(0x10000000)",
    "clone": "libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 0x10000000, 0, 0, 0, 0)",
    "mount": "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
    "bpf": "libc.syscall(321 if os.uname().machine == 'x86_64' else 280, 0, 0, 0)",
    "io_uring": "libc.syscall(425, 1, 0)",
    "pidfd_getfd": "libc.syscall(438, 0, 0, 0)",
    "other table": "libc.syscall(0x40000000 + 101, 16, 1, 0, 0)",
    "chroot": "libc.chroot(b'/')",
}


async def test_the_kernels_back_doors_are_shut(scripts: ScriptConnector) -> None:
    source = body(
        "import ctypes, os",
        "libc, got = ctypes.CDLL(None, use_errno=True), {}",
        "for name, line in request['params'].items():",
        "    got[name] = [eval(line), ctypes.get_errno()]",
        "return {'status': True, 'data': got}",
    )
    assert await run(scripts, source, inputs=BACK_DOORS) == {name: [-1, 1] for name in BACK_DOORS}


async def test_no_capability_is_left_that_could_harm(scripts: ScriptConnector) -> None:
    source = body(
        "import ctypes, struct",
        "head, sets = struct.pack('=Ii', 0x20080522, 0), ctypes.create_string_buffer(24)",
        "ctypes.CDLL(None).capget(head, sets)",
        "return {'status': True, 'data': [*struct.unpack('=6I', sets.raw)]}",
    )
    effective, permitted, inheritable, *_ = await run(scripts, source)
    reading = 4 if level_of(scripts) == 2 else 0  # Landlock says where; see Isolation.keep_search
    assert (effective | permitted) & ~reading == 0
    assert level_of(scripts) == 3 or inheritable == 0


async def test_no_new_rights_come_from_a_program_with_the_set_uid_bit(
    scripts: ScriptConnector,
) -> None:
    source = body(
        "import ctypes",
        "return {'status': True, 'data': ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)}",
    )
    assert await run(scripts, source) == 1


async def test_a_unix_socket_by_name_cannot_be_reached(
    scripts: ScriptConnector, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "door"))
        server.listen()
        got = await run(
            scripts,
            attempt(
                "s = socket.socket(socket.AF_UNIX)",
                f"s.connect({str(tmp_path / 'door')!r})",
                "got = 'connected'",
            ),
        )
    assert got == "held"


async def test_a_bomb_of_processes_stays_small_and_leaves_nothing(
    scripts: ScriptConnector,
) -> None:
    source = body(
        "import os, time",
        "made = 0",
        "for _ in range(100):",
        "    try:",
        "        if os.fork() == 0: time.sleep(60)",
        "        made += 1",
        "    except OSError: break",
        "return {'status': True, 'data': made}",
    )
    made = await run(scripts, source)
    if scripts.describe()["own_user"]:
        assert made <= LIMITS["script_processes"]
    await scripts.forget(RUN)
    assert _processes_of_scripts() == []


async def test_two_gibibytes_are_not_given(scripts: ScriptConnector) -> None:
    failed = await failure(scripts, body("x = bytearray(2 << 30)", "return {'status': True}"))
    assert failed.code == "sandbox_limit"
    assert "MACHINA_SCRIPT_MEMORY_BYTES" in failed.message


async def test_an_endless_loop_ends_with_its_processor_time(scripts: ScriptConnector) -> None:
    failed = await failure(scripts, body("while True: pass"))
    assert failed.code == "sandbox_limit"
    assert "MACHINA_SCRIPT_CPU_SECONDS" in failed.message


@pytest.mark.parametrize(
    "wait", ["import time; time.sleep(1e6)", "import signal; signal.pause()", "input()"]
)
async def test_a_call_that_waits_for_ever_ends_with_its_limit(
    scripts: ScriptConnector, wait: str
) -> None:
    source = body("import signal", "signal.signal(15, lambda *_: None)", wait)
    if wait == "input()":  # its standard input is empty
        failed = await failure(scripts, source)
        assert "EOFError" in failed.message
        return
    began = time.monotonic()
    failed = await failure(scripts, source, timeout_seconds=0.3)
    assert failed.code == "connector_timeout"
    assert time.monotonic() - began < 3


async def test_no_daemon_is_left_behind(scripts: ScriptConnector, tmp_path: Path) -> None:
    source = body(
        "import os, time",
        "if os.fork() == 0:",
        "    try: os.setsid()",
        "    except OSError: pass",
        "    if os.fork() == 0: time.sleep(60)",
        "    time.sleep(60)",
        "return {'status': True, 'data': 'gone'}",
    )
    assert await run(scripts, source) == "gone"
    assert _processes_of_scripts() != []
    await scripts.forget(RUN)
    assert _processes_of_scripts() == []


async def test_a_daemon_does_not_outlive_a_process_that_ends_itself(
    scripts: ScriptConnector,
) -> None:
    source = body("import os, time", "if os.fork(): os._exit(3)", "time.sleep(60)")
    began = time.monotonic()
    failed = await failure(scripts, source)
    assert "exit code 3" in failed.message
    assert time.monotonic() - began < 3
    assert _processes_of_scripts() == []


async def test_the_disk_is_not_filled_by_one_file(scripts: ScriptConnector) -> None:
    source = body(
        "import os",
        "with open(os.environ['TMPDIR'] + '/big', 'wb') as file:",
        "    for _ in range(64): file.write(bytes(1 << 20))",
        "return {'status': True}",
    )
    failed = await failure(scripts, source)
    assert failed.code == "sandbox_limit"
    assert "MACHINA_SCRIPT_FILE_BYTES" in failed.message
    await scripts.forget(RUN)


async def test_the_disk_is_not_filled_by_many_files(scripts: ScriptConnector) -> None:
    source = body(
        "import os, time",
        "for n in range(100):",
        "    with open(os.environ['TMPDIR'] + f'/{n}', 'wb') as file: file.write(bytes(1 << 19))",
        "    time.sleep(0.01)",
        "return {'status': True}",
    )
    failed = await failure(scripts, source)
    assert failed.code == "sandbox_limit"
    assert "MACHINA_SCRIPT_DIRECTORY_BYTES" in failed.message
    await scripts.forget(RUN)
    assert not scripts.directory(RUN).exists()


async def test_a_hundred_megabytes_of_output_are_cut(scripts: ScriptConnector) -> None:
    source = body(
        "import os",
        "piece = b'x' * (1 << 20)",
        "for _ in range(100): os.write(1, piece)",
        "return {'status': True, 'data': 'done'}",
    )
    with structlog.testing.capture_logs() as logged:
        assert await run(scripts, source) == "done"
    [line] = [line for line in logged if line["event"] == "script.printed"]
    assert line["truncated"] is True
    assert line["characters"] <= 1 << 20
    assert len(line["output"]) <= 4_000


async def test_an_answer_above_the_limit_is_refused(scripts: ScriptConnector) -> None:
    failed = await failure(scripts, body("return {'status': True, 'data': 'x' * (50 << 20)}"))
    assert failed.code == "sandbox_limit"
    assert "MACHINA_SCRIPT_REPLY_BYTES" in failed.message


async def test_an_announced_answer_above_the_limit_is_not_awaited(
    scripts: ScriptConnector,
) -> None:
    source = body(
        "import os, socket, time",
        "peer = socket.socket(fileno=os.dup(3))",
        "peer.sendall((1 << 31).to_bytes(4, 'big'))",
        "time.sleep(60)",
    )
    failed = await failure(scripts, source)
    assert failed.code == "sandbox_limit"


@pytest.mark.parametrize("limit", ["", "import sys; sys.setrecursionlimit(10 ** 9)"])
async def test_a_bottomless_recursion_ends(scripts: ScriptConnector, limit: str) -> None:
    source = body(limit or "pass", "import functools", "f = lambda *a: sorted([1], key=f)", "f()")
    failed = await failure(scripts, source)
    assert failed.code in ("connector_failed", "sandbox_limit")


async def test_no_file_descriptor_beyond_the_limit_is_given(scripts: ScriptConnector) -> None:
    source = attempt("got = len([os.dup(0) for _ in range(200)])")
    assert await run(scripts, source) == "held"


def _processes_of_scripts() -> list[str]:
    """Command lines of all processes on this machine that came from one of our children."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if "import child.main" in command and state not in "ZX" and _is_ours(entry):
            found.append(command[:80])
    return found


def _is_ours(entry: Path) -> bool:
    """Whether it belongs to this test process and not to another that runs beside it."""
    try:
        environ = (entry / "environ").read_bytes()
    except OSError:
        return False
    return str(os.getpid()).encode() in environ or b"level" in environ
