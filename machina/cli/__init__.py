"""The command table of `machina-server`; each command imports its process only when it is chosen.

Exit codes: 0 after a clean stop, 2 when the command line or a setting is not usable, 1 for any
other failure.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from machina import __version__
from machina.cli.template_commands import templates_app
from machina.errors import MachinaError, SettingsInvalid

PROGRAM: Final = "machina-server"

app = typer.Typer(
    name=PROGRAM,
    help="Runs AI agents and streams what they do, durably, to any HTTP client.",
    epilog="Every setting is an environment variable: see docs/settings.md. Options override them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys_app = typer.Typer(
    help="Create, list and revoke API keys. Reads MONGODB_URL or MACHINA_DATA_DIR.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(keys_app, name="keys")
secrets_app = typer.Typer(
    help="Keep, list and delete secrets. Reads MONGODB_URL or MACHINA_DATA_DIR, MACHINA_VAULT_KEY.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(secrets_app, name="secrets")
app.add_typer(templates_app, name="templates")

Host = Annotated[str | None, typer.Option(help="Address to listen on (MACHINA_HOST).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on (MACHINA_PORT).", max=65535)]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Use the embedded store of this directory, and the Redis of a `dev` that runs on it "
        "when REDIS_URL is not set (MACHINA_DATA_DIR)."
    ),
]
Project = Annotated[str, typer.Option(help="Project the keys belong to.")]
SecretProject = Annotated[str, typer.Option(help="Project the secrets belong to.")]
SecretName = Annotated[
    str, typer.Argument(help="Name, as TEMP_CONTEXT_VARIABLE_OPENAI_API_KEY.", metavar="NAME")
]


class ScopeName(StrEnum):
    """What a key may be created for."""

    client = "client"
    admin = "admin"


def main() -> NoReturn:
    """The console script; also `python -m machina`."""
    # structlog and httpx load `rich` wherever it is installed (typer brings it), for output that we
    # never make; without it each process starts a quarter of a second sooner.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None means: not importable
    try:
        app()
    except MachinaError as failed:
        print(f"{PROGRAM}: {failed.message}", file=sys.stderr)
        sys.exit(2 if isinstance(failed, SettingsInvalid) else 1)
    sys.exit(0)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Runs AI agents and streams what they do, durably, to any HTTP client."""


@app.command()
def dev(
    port: Port = None,
    host: Host = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Keep everything in this directory; it is created. Default: .machina"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Runs at once in the worker (MACHINA_WORKER_THREADS).", min=1, max=100_000
        ),
    ] = None,
    use_env: Annotated[
        bool,
        typer.Option(
            "--use-env",
            help="Heed REDIS_URL, REDIS_PUBSUB_URL, MONGODB_URL and MACHINA_DATA_DIR, which are "
            "ignored otherwise.",
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show everything that API and worker log.")
    ] = False,
) -> None:
    """Start everything on this machine: Redis, store, API, worker and a sample agent.

    The scripted model answers unless OPENAI_API_KEY or OPENAI_BASE_URL is set. Reads MACHINA_HOST,
    MACHINA_PORT and, for API and worker, every other setting but those that --use-env names.
    """
    from machina.cli.dev import DevOptions, run_dev

    run_dev(DevOptions(port, host, data_dir, threads, use_env, verbose))


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of processes (GUNICORN_WORKERS).", min=1, max=64)
    ] = None,
    data_dir: DataDir = None,
    share_port: Annotated[bool, typer.Option("--share-port", hidden=True)] = False,
) -> None:
    """Serve the API.

    Reads MONGODB_URL or MACHINA_DATA_DIR, REDIS_URL, REDIS_PUBSUB_URL, MACHINA_HOST, MACHINA_PORT,
    GUNICORN_WORKERS, MAX_CONCURRENT_STREAMS, MACHINA_DRAIN_SECONDS, LOG_LEVEL and the other
    settings of streams and runs. SIGTERM lets open streams finish, then stops.
    """
    from machina.cli.serve import run_api

    run_api(host=host, port=port, workers=workers, data_dir=data_dir, share_port=share_port)


@app.command()
def worker(
    queues: Annotated[
        str | None, typer.Option(help="Queues to serve, with commas between; all by default.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Runs at once per process (MACHINA_WORKER_THREADS).", min=1, max=100_000),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="Number of processes (MACHINA_WORKER_PROCESSES).", min=1, max=256),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Execute runs.

    Reads MONGODB_URL or MACHINA_DATA_DIR, REDIS_URL, REDIS_PUBSUB_URL, MACHINA_LEASE_SECONDS,
    MACHINA_MAX_ATTEMPTS, OPENAI_API_KEY, OPENAI_BASE_URL, LOG_LEVEL and the other settings of runs
    and models. SIGTERM hands running attempts back, then stops.
    """
    from machina.cli.serve import run_workers

    run_workers(queues=queues, threads=threads, processes=processes, data_dir=data_dir)


@app.command()
def scheduler(data_dir: DataDir = None) -> None:
    """Start agents and skills by their schedules; any number of these may run at once.

    Reads MONGODB_URL or MACHINA_DATA_DIR, REDIS_URL, MACHINA_SCHEDULES_START_PAUSED,
    MACHINA_ONE_SHOTS, MACHINA_SCHEDULE_MIN_SECONDS, MACHINA_SCHEDULE_CATCH_UP_SECONDS and
    LOG_LEVEL. SIGTERM stops it. With SCHEDULERS=1 every API process does the same.
    """
    from machina.cli.scheduler import run_scheduler

    run_scheduler(data_dir=data_dir)


@keys_app.command("create")
def create_key(
    scope: Annotated[ScopeName, typer.Option(help="What the key may do.")],
    name: Annotated[str, typer.Option(help="What the key is for, shown by `keys list`.")] = "",
    project: Project = "default",
    data_dir: DataDir = None,
) -> None:
    """Create an API key and print it, alone, on standard output. It is not stored readably."""
    from machina.cli.keys import create

    create(scope=scope.value, name=name, project=project, data_dir=data_dir)


@keys_app.command("list")
def list_keys(project: Project = "default", data_dir: DataDir = None) -> None:
    """List the API keys of a project by their prefixes."""
    from machina.cli.keys import show

    show(project=project, data_dir=data_dir)


@keys_app.command("revoke")
def revoke_key(
    prefix: Annotated[str, typer.Argument(help="Prefix of the key, as `keys list` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Revoke an API key; every process refuses it within seconds."""
    from machina.cli.keys import revoke

    revoke(prefix, data_dir=data_dir)


@secrets_app.command("set")
def set_secret(
    name: SecretName, project: SecretProject = "default", data_dir: DataDir = None
) -> None:
    """Keep a secret; its value is read from standard input, or asked for without showing it."""
    from machina.cli.secrets import put

    put(name, project=project, data_dir=data_dir)


@secrets_app.command("list")
def list_secrets(project: SecretProject = "default", data_dir: DataDir = None) -> None:
    """List the names of a project's secrets; values are never shown."""
    from machina.cli.secrets import show

    show(project=project, data_dir=data_dir)


@secrets_app.command("delete")
def delete_secret(
    name: SecretName, project: SecretProject = "default", data_dir: DataDir = None
) -> None:
    """Delete a secret."""
    from machina.cli.secrets import delete

    delete(name, project=project, data_dir=data_dir)


@secrets_app.command("reseal")
def reseal_secrets(data_dir: DataDir = None) -> None:
    """Encrypt all secrets with the first key of MACHINA_VAULT_KEY; older keys can go then."""
    from machina.cli.secrets import reseal

    reseal(data_dir=data_dir)


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the API as JSON. Reads no setting."""
    from machina.cli.openapi import show

    show()
