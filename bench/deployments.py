"""The three things that are measured, each started the way its users start it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.machine import cpu_of, rss_kib
from bench.plan import Target
from bench.processes import ROOT, Process, RedisChild, python, running_redis
from machina.cli.directory import DataDirectory
from machina.cli.seeding import seed
from machina.settings import load_settings
from tests.journeys.harness import bare_environment, free_port

PATH: Final = "/agent/stream/hello"
FREE: Final = "100000"
"""What lifts a limit."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Something that streams, and the processes it consists of."""

    target: Target
    parts: Mapping[str, Callable[[], list[int]]]
    """Process ids by part: `api`, `worker`, `redis`; asked again for each snapshot."""
    redis: RedisChild | None = None

    @property
    def name(self) -> str:
        """As tables call it."""
        return self.target.name

    def cpu(self) -> dict[str, float]:
        """CPU seconds by part, so far."""
        return {part: cpu_of(pids()) for part, pids in self.parts.items()}

    def rss(self, part: str) -> float:
        """Resident memory of a part, in KiB."""
        return sum(rss_kib(pid) for pid in self.parts[part]())


@dataclass(frozen=True, slots=True)
class Shape:
    """How many processes of the product, and how many runs each worker takes at once."""

    apis: int = 1
    workers: int = 1
    threads: int = 5000
    stamped: bool = False


@contextmanager
def running_product(home: Path, shape: Shape = Shape()) -> Iterator[Deployment]:
    """The product by its own commands, in production's settings, with the sample agent."""
    home.mkdir(parents=True, exist_ok=True)
    data_dir = home / "data"
    place = ("--data-dir", str(data_dir))
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(home))
        environ = bare_environment(
            REDIS_URL=redis.url,
            MAX_CONCURRENT_STREAMS=FREE,
            MACHINA_MAX_VIEWERS=FREE,
            STREAM_TIMEOUT_SECONDS="3600",
            PYTHONPATH=str(ROOT),
        )
        directory = DataDirectory(data_dir)
        directory.create()
        seed(load_settings(data_dir=data_dir), directory)
        port = free_port()

        def start(name: str, command: list[str]) -> Process:
            process = Process(name, command, home=home, environ=environ)
            stack.callback(process.close)
            return process

        api_command = ("api", "--port", str(port), "--workers", str(shape.apis), *place)
        api = start("api", python("-m", "machina", *api_command))
        if shape.stamped:
            options = (str(data_dir), str(shape.threads))
            worker = start("worker", python("-m", "bench.stamped_worker", *options))
        else:
            counts = ("--threads", str(shape.threads), "--processes", str(shape.workers))
            worker = start("worker", python("-m", "machina", "worker", *counts, *place))
        api.wait_until_said(r"api\.listening", shape.apis)
        worker.wait_until_said(r"worker\.started", shape.workers)
        key = directory.admin_key.read_text().strip()
        yield Deployment(
            Target("machina", port, PATH, key, stamped=shape.stamped),
            {
                "api": lambda: api.pids,
                "worker": lambda: worker.pids,
                "redis": lambda: redis.pids,
            },
            redis,
        )


@contextmanager
def running_guide(home: Path, *, pool: str, concurrency: int) -> Iterator[Deployment]:
    """The guide's architecture; `pool` is Celery's, `gevent` or the guide's own `prefork`."""
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(home))
        environ = bare_environment(REDIS_URL=redis.url, PYTHONPATH=str(ROOT))
        port = free_port()
        gunicorn = python("-m", "gunicorn", "--worker-class", "gevent", "--workers", "1")
        gunicorn += ["--worker-connections", FREE, "--backlog", "8192", "--timeout", "300"]
        gunicorn += ["--bind", f"127.0.0.1:{port}", "bench.reference.guide_web:app"]
        celery = python("-m", "celery", "-A", "bench.reference.guide_tasks", "worker")
        celery += ["-l", "INFO", "-P", pool, "-c", str(concurrency), "-Q", "streaming_priority"]
        web = Process("web", gunicorn, home=home, environ=environ)
        stack.callback(web.close)
        tasks = Process("celery", celery, home=home, environ=environ)
        stack.callback(tasks.close)
        web.wait_port(port)
        tasks.wait_until_said(r"celery@\S+ ready")
        yield Deployment(
            Target(f"guide, {pool}", port, PATH),
            {"api": lambda: web.pids, "worker": lambda: tasks.pids, "redis": lambda: redis.pids},
            redis,
        )


@contextmanager
def running_generator(home: Path, recorded: Path | None = None) -> Iterator[Deployment]:
    """A generator in the same server; `recorded` is a file it can replay."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    options = (str(port), *((str(recorded),) if recorded is not None else ()))
    environ = bare_environment(PYTHONPATH=str(ROOT))
    command = python("-m", "bench.reference.generator", *options)
    server = Process("generator", command, home=home, environ=environ)
    try:
        server.wait_port(port)
        yield Deployment(Target("generator", port, PATH), {"api": lambda: server.pids})
    finally:
        server.close()


def forget(home: Path) -> None:
    """Removes what a deployment left."""
    shutil.rmtree(home, ignore_errors=True)
