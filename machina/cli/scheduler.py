"""The scheduler as a process of its own, and beside the API in the API's process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from machina.cli.metrics import open_metrics
from machina.cli.parent import follow_parent
from machina.cli.preflight import check_services, load_service_settings
from machina.observability.logging import configure
from machina.settings import Settings

if TYPE_CHECKING:
    from machina.observability.metrics import Metrics
    from machina.resources import Resources

log = structlog.get_logger(__name__)


def run_scheduler(*, data_dir: Path | None) -> None:
    """The command `scheduler`; see there.

    Raises:
        SettingsInvalid: a setting is not usable.
        StoreDown: the store cannot be opened.
    """
    follow_parent()
    settings = load_service_settings(data_dir)
    configure(settings, process="scheduler")
    check_services(settings)
    with (
        open_metrics() as metrics,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_schedule(settings, metrics))


def with_scheduler(
    open_resources: Callable[[Settings], AbstractAsyncContextManager[Resources]],
) -> Callable[[Settings], AbstractAsyncContextManager[Resources]]:
    """Opens what an API process shares, with a scheduler among the loops that it supervises."""

    @asynccontextmanager
    async def open_both(settings: Settings) -> AsyncIterator[Resources]:
        from machina.scheduler import make_scheduler

        async with open_resources(settings) as resources:
            resources.more_background["scheduler"] = make_scheduler(resources).run
            log.info("scheduler.started", beside="api")
            yield resources

    return open_both


async def _schedule(settings: Settings, metrics: Metrics) -> None:
    """Fires schedules until SIGTERM or SIGINT; what it was firing then, the next one completes."""
    from machina.observability.sampling import Sampler
    from machina.observability.supervision import Supervisor
    from machina.observability.watchdog import LoopWatchdog
    from machina.resources import open_resources
    from machina.scheduler import make_scheduler

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_resources(settings, process="scheduler", metrics=metrics) as resources:
        supervisor = Supervisor(metrics=metrics)
        try:
            on_tick = metrics.process.loop_lag.labels("scheduler").observe
            supervisor.start("scheduler", make_scheduler(resources).run)
            supervisor.start("watchdog", LoopWatchdog(on_tick=on_tick).run)
            supervisor.start("sampler", Sampler(metrics, resources.readings("scheduler")).run)
            log.info("scheduler.started")
            await stop.wait()
        finally:
            await supervisor.aclose()
    log.info("scheduler.stopped")
