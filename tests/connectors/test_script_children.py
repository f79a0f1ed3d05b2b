"""Children: used again within a run, bounded in number, and gone whatever happens to a call."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from machina.connectors.scripts.children import MAX_CALLS
from machina.errors import ConnectorFailed
from tests.connectors.scripting import OTHER_RUN, RUN, body, call_of, failure, opened, run

WHO = body("import os", "return {'status': True, 'data': os.getpid()}")
NAP = body(
    "import os, time",
    "open(os.environ['TMPDIR'] + '/' + str(os.getpid()), 'w').close()",
    "time.sleep(request['params'].get('seconds', 60))",
    "return {'status': True, 'data': os.getpid()}",
)
LEVEL = "2"


async def test_a_child_is_used_again_by_the_same_run_for_the_same_script(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        first = await run(scripts, WHO)
        assert await run(scripts, WHO) == first
        assert await run(scripts, WHO, run_id=OTHER_RUN) != first
        assert await run(scripts, WHO + "# other") != first
        assert await run(scripts, WHO) == first


async def test_a_child_is_replaced_after_a_failure_and_after_many_calls(tmp_path: Path) -> None:
    source = WHO + body("return 1 / 0").replace("run", "fail")
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        first = await run(scripts, source)
        await failure(scripts, source, "fail")
        second = await run(scripts, source)
        assert second != first
        pids = {await run(scripts, source) for _ in range(MAX_CALLS)}
        assert len(pids) == 2


async def test_calls_of_one_run_go_on_side_by_side(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        calls = (run(scripts, NAP, inputs={"seconds": 0.3}) for _ in range(3))
        assert len(set(await asyncio.gather(*calls))) == 3


async def test_no_more_children_live_than_allowed(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox=LEVEL, script_children=2) as scripts:
        calls = [run(scripts, NAP, inputs={"seconds": 0.05}, run_id=f"run{n}") for n in range(6)]
        most = 0
        work = asyncio.gather(*calls)
        while not work.done():
            most = max(most, len(scripts._children))
            await asyncio.sleep(0.01)
        await work
        assert 1 <= most <= 2
        assert len(scripts._children) <= 2


async def test_a_cancelled_call_ends_its_process_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        call = asyncio.create_task(run(scripts, NAP))
        pid = await first_pid(scripts.directory(RUN), call)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not lives(pid)
        assert len(scripts._children) == 0


async def test_a_call_cancelled_at_any_moment_leaves_no_child(tmp_path: Path) -> None:
    before = children()
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        for wait in (0, 0.001, 0.005, 0.02, 0.04, 0.06):
            call = asyncio.create_task(run(scripts, NAP))
            await asyncio.sleep(wait)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert len(scripts._children) == 0
    assert set(children()) <= set(before)


async def test_forgetting_a_run_ends_its_idle_children_and_no_others(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        mine, other = await run(scripts, WHO), await run(scripts, WHO, run_id=OTHER_RUN)
        await scripts.forget(RUN)
        assert not lives(mine)
        assert lives(other)
        await scripts.forget(RUN)


async def test_leaving_a_run_ends_its_idle_children_and_keeps_its_files(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        idle, other = await run(scripts, WHO), await run(scripts, WHO, run_id=OTHER_RUN)
        call = asyncio.create_task(run(scripts, NAP, inputs={"seconds": 0.5}))
        busy = await first_pid(scripts.directory(RUN), call)
        await scripts.leave(RUN)
        assert not lives(idle)
        assert lives(busy)
        assert lives(other)
        assert await call == busy
        assert list_names(scripts.directory(RUN)) == [str(busy)]


async def test_closing_ends_calls_under_way(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        call = asyncio.create_task(scripts.call(call_of(NAP)))
        pid = await first_pid(scripts.directory(RUN), call)
    assert not lives(pid)
    with pytest.raises(ConnectorFailed):
        await call


async def test_a_child_that_died_while_idle_is_not_used_again(tmp_path: Path) -> None:
    async with opened(tmp_path, script_sandbox=LEVEL) as scripts:
        pid = await run(scripts, WHO)
        os.kill(pid, 9)
        while lives(pid):  # without a pause: the loop has not heard of its end yet
            pass
        assert await run(scripts, WHO) != pid


async def first_pid(directory: Path, call: asyncio.Task[object]) -> int:
    """The process of a call that has begun to run."""
    while not call.done():
        names = list_names(directory)
        if names:
            return int(names[0])
        await asyncio.sleep(0.01)
    raise AssertionError(f"the call ended: {call}")


def list_names(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.is_dir() else []


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children() -> list[int]:
    """Processes whose parent we are."""
    me = str(os.getpid())
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == me and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found
