"""compose.yaml: its schema, its variables, its walls, and its Redis for real."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from machina.cli.preflight import load_service_settings
from machina.cli.serve import WORKER_GRACE_SECONDS, parse_queues
from machina.cli.server import LINGER_SECONDS, MARGIN_SECONDS
from machina.queue.names import Queue
from machina.settings import Settings
from tests.deploy.production import BIN, ROOT
from tests.deploy.test_containerfile import WORK_DIRECTORY
from tests.deploy.variables import GUIDE, PASSWORDS, SETTINGS
from tests.journeys.harness import free_port, wait_until

FILE: Final = ROOT / "compose.yaml"
OURS: Final = ("api", "worker-streaming", "worker")
VARIABLE: Final = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<what>[^}]*))?\}")
GUIDES_VALUES: Final = {
    "GUNICORN_WORKERS": "4",
    "MAX_CONCURRENT_STREAMS": "10",
    "STREAM_TIMEOUT_SECONDS": "300",
    "CIRCUIT_BREAKER_THRESHOLD": "5",
    "LOG_LEVEL": "info",
    "SCHEDULERS": "1",
    "MACHINA_CLIENT_VERSION": "2.0.0",
}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
    return loaded


def variables() -> Iterator[re.Match[str]]:
    lines = (line for line in FILE.read_text().splitlines() if not line.lstrip().startswith("#"))
    yield from VARIABLE.finditer("\n".join(lines))


def resolve(text: str, values: Mapping[str, str]) -> str:
    """A value as Compose hands it over."""
    filled = VARIABLE.sub(lambda found: values.get(found["name"]) or found["what"], text)
    return filled.replace("$$", "$")


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text[:-1])


def test_it_follows_the_compose_specification() -> None:
    checker = BIN / "check-jsonschema"
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_is_a_setting_or_the_password_of_a_service() -> None:
    names = {found["name"] for found in variables()}
    assert names - SETTINGS.keys() == PASSWORDS


def test_no_password_has_a_default() -> None:
    for found in variables():
        if found["name"] in PASSWORDS:
            assert (found["how"], found["what"]) == ("?", f"put {found['name']} into .env")


@pytest.mark.parametrize("name", OURS)
def test_the_guides_ten_are_wired_and_everything_else_is_a_setting(
    services: dict[str, dict[str, Any]], name: str
) -> None:
    environment = services[name]["environment"]
    assert set(GUIDE) <= environment.keys()
    assert environment.keys() <= SETTINGS.keys() | PASSWORDS
    assert {variable: resolve(environment[variable], {}) for variable in GUIDES_VALUES} == (
        GUIDES_VALUES
    )
    assert {environment[password] for password in PASSWORDS} == {""}, "not for our processes"
    assert services[name]["env_file"] == [{"path": ".env", "required": False}]


def test_production_starts_with_what_it_hands_over(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passwords = {name: secrets.token_hex(24) for name in PASSWORDS}
    for variable in SETTINGS:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in services["api"]["environment"].items():
        monkeypatch.setenv(variable, resolve(value, passwords))
    monkeypatch.chdir(tmp_path)
    settings = load_service_settings(None)
    assert settings.environment == "production"
    assert settings.redis_url == f"redis://:{passwords['REDIS_PASSWORD']}@redis:6379/0"
    assert settings.redis_pubsub_url == f"redis://:{passwords['REDIS_PASSWORD']}@redis:6379/1"
    assert settings.mongodb_url == (
        f"mongodb://machina:{passwords['MONGO_PASSWORD']}@mongo:27017/machina"
    )
    assert (settings.host, settings.port, settings.data_dir) == ("0.0.0.0", 5003, None)


def test_the_workers_serve_every_queue_once_and_streams_alone(
    services: dict[str, dict[str, Any]],
) -> None:
    assert services["api"]["command"] == ["api"]
    served = {}
    for name in ("worker-streaming", "worker"):
        command, option, queues = services[name]["command"]
        assert (command, option) == ("worker", "--queues")
        served[name] = parse_queues(queues)
    assert served["worker-streaming"] == [Queue.STREAMING]
    assert served["worker"] == [queue for queue in Queue if queue is not Queue.STREAMING]


def test_no_service_can_do_more_than_it_must(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"], name
        assert service["restart"] == "unless-stopped", name
        assert not any("docker.sock" in volume for volume in service.get("volumes", [])), name
    assert services["redis"]["user"] == services["mongo"]["user"] == "999:999"
    assert all("user" not in services[name] for name in OURS), "the image says it"


def test_only_the_api_is_reached_from_outside_and_only_from_this_machine(
    services: dict[str, dict[str, Any]],
) -> None:
    assert {name for name, service in services.items() if "ports" in service} == {"api"}
    assert services["api"]["ports"] == ["127.0.0.1:5003:5003"]
    assert yaml.safe_load(FILE.read_text())["networks"]["stores"] == {"internal": True}
    assert services["redis"]["networks"] == services["mongo"]["networks"] == ["stores"]


def test_processes_wait_for_services_that_tell_when_they_are_healthy(
    services: dict[str, dict[str, Any]],
) -> None:
    for name in OURS:
        waited = services[name]["depends_on"]
        assert {service["condition"] for service in waited.values()} == {"service_healthy"}
        assert all("test" in services[service]["healthcheck"] for service in waited)
    assert "healthcheck" not in services["api"], "the image's own"


def test_the_workers_share_the_files_of_scripts(services: dict[str, dict[str, Any]]) -> None:
    for name in OURS:
        assert services[name]["environment"]["MACHINA_WORK_DIR"] == WORK_DIRECTORY
        mounted = ["work:" + WORK_DIRECTORY] if name != "api" else []
        assert services[name].get("volumes", []) == mounted


def test_the_key_of_the_vault_comes_from_the_same_file_as_the_passwords(
    services: dict[str, dict[str, Any]],
) -> None:
    head = FILE.read_text().partition("name: machina\n")[0]
    assert re.search(r"MACHINA_VAULT_KEY=.*>> \.env", head)
    assert all("MACHINA_VAULT_KEY" not in services[name]["environment"] for name in OURS)


def test_every_volume_that_is_used_is_declared_and_every_file_exists(
    services: dict[str, dict[str, Any]],
) -> None:
    used = {
        volume.partition(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
    }
    files = {name for name in used if name.startswith(".")}
    assert used - files == set(yaml.safe_load(FILE.read_text())["volumes"])
    assert all((ROOT / name).is_file() for name in files)


def test_processes_have_the_time_to_stop_that_they_take(
    services: dict[str, dict[str, Any]],
) -> None:
    drain = Settings.model_fields["drain_seconds"].default + MARGIN_SECONDS + LINGER_SECONDS + 1
    assert seconds(services["api"]["stop_grace_period"]) > drain
    for name in ("worker-streaming", "worker"):
        assert seconds(services[name]["stop_grace_period"]) > WORKER_GRACE_SECONDS


@pytest.fixture
def password() -> str:
    return secrets.token_hex(24)


@pytest.fixture
def composed_redis(
    services: dict[str, dict[str, Any]], password: str, tmp_path: Path
) -> Iterator[int]:
    """The command of the service `redis`, on a port and in a directory of the test's own."""
    shell, flags, script = services["redis"]["command"]
    assert "--dir /data " in script
    port = free_port()
    own = f"--dir {tmp_path} --port {port} --bind 127.0.0.1 "
    environ = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "REDISCLI_AUTH": password}
    process = subprocess.Popen(
        [shell, flags, resolve(script, {}).replace("--dir /data ", own)],
        env=environ,
        stdout=subprocess.DEVNULL,
    )
    try:
        check = resolve(services["redis"]["healthcheck"]["test"][1], {})
        wait_until(
            lambda: _is_healthy(check.replace("redis-cli", f"redis-cli -p {port}"), environ),
            "the health check of redis succeeds",
        )
        yield port
    finally:
        process.kill()
        process.wait()


def _is_healthy(check: str, environ: Mapping[str, str]) -> bool:
    return subprocess.run(["sh", "-c", check], env=environ, capture_output=True).returncode == 0


def test_its_redis_asks_for_the_password_keeps_everything_and_evicts_nothing(
    composed_redis: int, password: str
) -> None:
    once = Retry(NoBackoff(), 0)
    with (
        redis.Redis(port=composed_redis, protocol=2, retry=once) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    with redis.Redis(port=composed_redis, password=password, protocol=2) as client:
        wanted = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "maxmemory": str(1024**3),
        }
        found: Any = client.config_get()
        assert {name: found[name] for name in wanted} == wanted
    assert not any(password.encode() in line for line in _command_lines()), "ps would show it"


def _command_lines() -> list[bytes]:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                lines.append((entry / "cmdline").read_bytes())
            except OSError:  # it ended meanwhile
                continue
    return lines
