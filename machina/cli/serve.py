"""Starts API and worker: one process of its own, or several under the supervisor."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import uvloop

from machina.cli.collector import calm_collector
from machina.cli.listening import free_port, make_url, open_listener
from machina.cli.metrics import open_metrics, show_group
from machina.cli.parent import follow_parent
from machina.cli.preflight import check_services, load_service_settings
from machina.cli.supervisor import Child, machina_child, supervise
from machina.errors import SettingsInvalid
from machina.observability.logging import configure
from machina.observability.process_group import ProcessGroup, open_group
from machina.queue.names import Queue
from machina.settings import Settings, variable_name

if TYPE_CHECKING:
    from machina.observability.metrics import Metrics

log = structlog.get_logger(__name__)

SAME_PRESS_SECONDS: Final = 2.0
WORKER_GRACE_SECONDS: Final = 12.0
"""A worker needs up to 9 s to hand everything back while store or Redis are slow."""
FAILED: Final = 1


def run_api(
    *,
    host: str | None,
    port: int | None,
    workers: int | None,
    data_dir: Path | None,
    share_port: bool,
) -> None:
    """The command `api`; see there. `share_port` marks one process of several.

    Raises:
        SettingsInvalid: a setting is not usable, or the port is taken.
    """
    _follow_parent()
    settings = load_service_settings(data_dir, host=host, port=port, gunicorn_workers=workers)
    configure(settings, process="api")
    if not share_port:
        check_services(settings)
    if settings.gunicorn_workers == 1 or share_port:
        sys.exit(_serve_api(settings, shared=share_port))
    port = free_port(settings.host, settings.port)
    # Bound for as long as we live and never listening, it keeps the port for our children.
    count = settings.gunicorn_workers
    with open_listener(settings.host, port, shared=True), open_group() as group:
        log.info("api.starting", url=make_url(settings.host, port), processes=count)
        options = (
            *("--host", settings.host, "--port", str(port), "--share-port"),
            *("--workers", str(count)),
            *_same(data_dir),
        )
        sys.exit(_run_several("api", options, count, _api_grace(settings), group))


def run_workers(
    *, queues: str | None, threads: int | None, processes: int | None, data_dir: Path | None
) -> None:
    """The command `worker`; see there.

    Raises:
        SettingsInvalid: a setting or the name of a queue is not usable.
    """
    _follow_parent()
    served = parse_queues(queues)
    settings = load_service_settings(data_dir, worker_threads=threads, worker_processes=processes)
    configure(settings, process="worker")
    check_services(settings)
    if settings.worker_processes == 1:
        with (
            open_metrics(settings) as metrics,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_work(settings, served, metrics))
        return
    options = (
        *("--queues", ",".join(served)),
        *("--threads", str(settings.worker_threads)),
        *("--processes", "1"),
        *_same(data_dir),
    )
    count = settings.worker_processes
    with open_group() as group, show_group(settings, group):
        sys.exit(_run_several("worker", options, count, WORKER_GRACE_SECONDS, group))


def parse_queues(text: str | None) -> list[Queue]:
    """The queues of a list with commas, most urgent first; all of them for None.

    Raises:
        SettingsInvalid: a name is not one of ours; the message lists those that are.
    """
    if text is None:
        return list(Queue)
    names = {name for part in text.split(",") if (name := part.strip())}
    unknown = names - set(Queue)
    if unknown or not names:
        raise SettingsInvalid(
            f"--queues {text}: {', '.join(sorted(unknown)) or 'nothing'} is no queue; "
            f"choose from {', '.join(Queue)}."
        )
    return [queue for queue in Queue if queue in names]


def _serve_api(settings: Settings, *, shared: bool) -> int:
    from machina.cli.server import Server

    with (
        open_listener(settings.host, settings.port, shared=shared, listening=False) as listener,
        open_metrics() as metrics,
    ):
        from machina.api.app import OpenResources, create_app
        from machina.resources import open_resources

        opening: OpenResources = functools.partial(open_resources, process="api", metrics=metrics)
        if settings.schedulers:
            from machina.cli.scheduler import with_scheduler

            opening = with_scheduler(opening)
        url = make_url(settings.host, listener.getsockname()[1])
        server = Server(
            create_app(settings, opening),
            drain_seconds=settings.drain_seconds,
            on_listening=lambda: log.info("api.listening", url=url),
        )
        calm_collector()
        try:
            server.run([listener])
        except SystemExit:  # what could not be opened is in the log
            return FAILED
        return FAILED if server.was_forced else 0


def _api_grace(settings: Settings) -> float:
    from machina.cli.server import LINGER_SECONDS, MARGIN_SECONDS

    return settings.drain_seconds + MARGIN_SECONDS + LINGER_SECONDS + 1


async def _work(settings: Settings, queues: Sequence[Queue], metrics: Metrics) -> None:
    from machina.worker.app import run_worker
    from machina.worker.crew import open_crew

    stop = asyncio.Event()
    asked_at: list[float] = []

    def on_signal() -> None:
        now = time.monotonic()
        asked_at.append(now)
        stop.set()
        if now - asked_at[0] >= SAME_PRESS_SECONDS:
            log.warning("worker.forced")  # what it held comes back when its lease is over
            os._exit(FAILED)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    calm_collector()
    await run_worker(
        settings,
        queues=queues,
        threads=settings.worker_threads,
        stop=stop,
        execute_factory=open_crew,
        metrics=metrics,
    )


def _run_several(
    command: str, options: Sequence[str], count: int, grace_seconds: float, group: ProcessGroup
) -> int:
    names = [f"{command}-{number}" for number in range(1, count + 1)]
    children: list[Child] = [
        machina_child(name, command, *options, environ=group.environ(name)) for name in names
    ]
    return supervise(children, grace_seconds=grace_seconds, on_end=group.forget)


def _same(data_dir: Path | None) -> tuple[str, ...]:
    return ("--data-dir", str(data_dir)) if data_dir is not None else ()


def _follow_parent() -> None:
    # A `dev` that was killed is started again at once: its children must not be in the way.
    is_dev = os.environ.get(variable_name("environment")) == "dev"
    follow_parent(signal.SIGKILL if is_dev else signal.SIGTERM)
