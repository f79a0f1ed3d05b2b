"""The command `dev`: Redis, store, API and worker on this machine, with a sample agent to try."""

from __future__ import annotations

import http.client
import os
import sys
import threading
import time
from collections.abc import MutableMapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from machina.cli.directory import DataDirectory
from machina.cli.listening import free_port, make_url
from machina.cli.parent import follow_parent
from machina.cli.preflight import DEFAULT_DIR
from machina.cli.redis_child import find_redis_server, make_socket_path, redis_command
from machina.cli.seeding import seed
from machina.cli.supervisor import Child, machina_child, supervise
from machina.cli.welcome import welcome
from machina.errors import SettingsInvalid
from machina.observability.logging import configure
from machina.observability.process_group import ProcessGroup, open_group
from machina.settings import Settings, load_settings, read_env_file, variable_name

IGNORED: Final = ("redis_url", "redis_pubsub_url", "mongodb_url", "data_dir")
"""Settings that `dev` takes from the environment only when it is told to."""
DRAIN_SECONDS: Final = "2"
GRACE_SECONDS: Final = 5.5
PORT_PATIENCE_SECONDS: Final = 3.0
POLL_SECONDS: Final = 0.05
LATE_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class DevOptions:
    """The command line of `dev`; None where it says nothing."""

    port: int | None = None
    host: str | None = None
    data_dir: Path | None = None
    threads: int | None = None
    use_env: bool = False
    verbose: bool = False


def run_dev(options: DevOptions) -> None:
    """Runs everything until a signal; exits with 0 after a clean stop.

    Raises:
        SettingsInvalid: the directory is in use, the port is taken, there is no redis-server.
    """
    follow_parent()
    environ = os.environ
    settle_environment(environ, use_env=options.use_env)
    settings = load_settings(
        host=options.host,
        port=options.port,
        data_dir=options.data_dir or (None if environ.get("MACHINA_DATA_DIR") else DEFAULT_DIR),
        worker_threads=options.threads,
        environment="dev",
    )
    directory = DataDirectory(Path(settings.data_dir or DEFAULT_DIR).absolute())
    if settings.mongodb_url is not None:  # one store is enough
        settings = settings.model_copy(update={"data_dir": None})
    directory.create()
    lock = directory.lock()
    try:
        port = _wait_for_port(settings, directory)
        with open_group(directory.path) as group:
            sys.exit(_run(settings, directory, port, options.verbose, group))
    finally:
        os.close(lock)


def settle_environment(environ: MutableMapping[str, str], *, use_env: bool) -> None:
    """Makes `environ` what `dev` and its children go by: the env file is taken in once, here.

    Without `use_env`, what names a service or a directory is dropped: it may be meant for another
    deployment, as in a copied `.env.example`.
    """
    for name, value in read_env_file().items():
        if not environ.get(name):
            environ[name] = value
    environ[variable_name("env_file")] = os.devnull
    if not use_env:
        for field in IGNORED:
            environ.pop(variable_name(field), None)


def _wait_for_port(settings: Settings, directory: DataDirectory) -> int:
    # Where a `dev` was killed, its API may need a moment to let go of the port.
    was_killed = directory.read_redis_url() is not None
    deadline = time.monotonic() + (PORT_PATIENCE_SECONDS if was_killed else 0)
    while True:
        try:
            return free_port(settings.host, settings.port)
        except SettingsInvalid:
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_SECONDS)


def _run(
    settings: Settings, directory: DataDirectory, port: int, verbose: bool, group: ProcessGroup
) -> int:
    environ = _child_environment(settings, directory, port, verbose)
    configure(settings.model_copy(update={"log_level": environ["LOG_LEVEL"]}), process="dev")
    children = []
    if settings.redis_url is None:
        binary = find_redis_server()
        directory.await_redis_end()
        socket_path = make_socket_path(directory.path)
        environ["REDIS_URL"] = f"unix://{quote(str(socket_path))}"
        command = redis_command(binary.path, directory.redis, socket_path)
        children.append(Child("redis", tuple(command)))
        directory.write_redis_url(environ["REDIS_URL"])
    if settings.vault_key is None:
        environ["MACHINA_VAULT_KEY"] = directory.keep_vault_key()
    seed(settings, directory)
    children += [
        Child(child.name, child.command, environ | group.environ(child.name), stage=1)
        for child in (machina_child("api", "api"), machina_child("worker", "worker"))
    ]
    url = make_url(settings.host, port)
    text = welcome(url, settings, directory)
    threading.Thread(target=_greet, args=(url, text), daemon=True).start()
    code = supervise(children, grace_seconds=GRACE_SECONDS, on_end=group.forget)
    directory.forget_redis_url()
    if code == 0:
        print(f"Stopped. Everything is kept in {directory.path}.", flush=True)
    else:
        print(
            f"machina-server: dev stopped because something failed (exit code {code}). The lines "
            f"above say what; Redis writes to {directory.redis / 'redis.log'}.",
            file=sys.stderr,
        )
    return code


def _child_environment(
    settings: Settings, directory: DataDirectory, port: int, verbose: bool
) -> dict[str, str]:
    """What API and worker are told on top of our own environment."""
    environ = {
        "MACHINA_ENVIRONMENT": "dev",
        "MACHINA_HOST": settings.host,
        "MACHINA_PORT": str(port),
        "MACHINA_WORKER_THREADS": str(settings.worker_threads),
        "SCHEDULERS": os.environ.get("SCHEDULERS") or "1",
        # Their usual lines would bury what there is to try; the user's own choice stands.
        "LOG_LEVEL": os.environ.get("LOG_LEVEL") or ("info" if verbose else "warning"),
        "MACHINA_DRAIN_SECONDS": os.environ.get("MACHINA_DRAIN_SECONDS") or DRAIN_SECONDS,
    }
    if settings.mongodb_url is None:
        environ["MACHINA_DATA_DIR"] = str(directory.path)
    return environ


def _greet(url: str, text: str) -> None:
    """Waits for the API and says what to try; runs in a thread beside the supervisor."""
    began = time.monotonic()
    late = False
    while not _is_ready(url):
        if not late and time.monotonic() - began > LATE_SECONDS:
            late = True
            print(f"Still waiting for {url}/system/readiness …", file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS)
    print(text, flush=True)


def _is_ready(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/system/readiness")
        return connection.getresponse().status == http.client.OK
    return False
