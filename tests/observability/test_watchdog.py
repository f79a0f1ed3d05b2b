"""A blocked event loop is reported with what blocks it."""

from __future__ import annotations

import asyncio
import time

from structlog.testing import capture_logs

from machina.observability.watchdog import LoopWatchdog


def block(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_blocked_loop_is_reported_once_with_its_stack() -> None:
    watchdog = LoopWatchdog(tick_seconds=0.02, lag_seconds=0.1)
    with capture_logs() as logs:
        task = asyncio.create_task(watchdog.run())
        await asyncio.sleep(0.05)
        assert logs == []
        block(0.4)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
    [line] = logs
    assert line["event"] == "loop.blocked"
    assert line["seconds"] >= 0.1
    assert "in block" in line["stack"]


async def test_a_busy_loop_that_turns_is_not_reported() -> None:
    watchdog = LoopWatchdog(tick_seconds=0.02, lag_seconds=0.2)
    with capture_logs() as logs:
        task = asyncio.create_task(watchdog.run())
        for _ in range(10):
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
    assert logs == []
