from __future__ import annotations

import socket
from pathlib import Path

import pytest

from machina.cli.directory import DataDirectory
from machina.cli.preflight import load_service_settings, load_store_settings
from machina.errors import SettingsInvalid
from machina.settings import Settings

LOCAL_REDIS = "redis://localhost:6379/0"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.chdir(tmp_path)


def test_production_refuses_to_guess_a_store() -> None:
    with pytest.raises(SettingsInvalid, match=r"MONGODB_URL is not set.*--data-dir"):
        load_store_settings(None)


def test_dev_falls_back_to_its_own_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINA_ENVIRONMENT", "dev")
    assert load_store_settings(None).data_dir == Path(".machina")


def test_a_data_directory_on_the_command_line_overrides_mongodb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://localhost/machina")
    settings = load_store_settings(tmp_path / "data")
    assert settings.mongodb_url is None
    assert settings.data_dir == tmp_path / "data"


def test_two_stores_in_the_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://localhost/machina")
    monkeypatch.setenv("MACHINA_DATA_DIR", "data")
    with pytest.raises(SettingsInvalid, match="MACHINA_DATA_DIR=data"):
        load_store_settings(None)


def test_production_refuses_an_unset_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://localhost/machina")
    with pytest.raises(SettingsInvalid, match="REDIS_URL is not set: name a Redis"):
        load_service_settings(None)


def test_a_running_dev_on_the_same_directory_lends_its_redis(tmp_path: Path) -> None:
    place = tmp_path / "r.sock"
    directory = DataDirectory(tmp_path)
    directory.write_redis_url(f"unix://{place}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as redis:
        redis.bind(str(place))
        redis.listen()
        assert load_service_settings(tmp_path).redis_url == f"unix://{place}"
    with pytest.raises(SettingsInvalid, match="no `machina-server dev` runs on"):
        load_service_settings(tmp_path)


def test_redis_url_is_taken_before_that_of_dev(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    DataDirectory(tmp_path).write_redis_url("unix:///tmp/other.sock")
    monkeypatch.setenv("REDIS_URL", LOCAL_REDIS)
    assert load_service_settings(tmp_path).redis_url == LOCAL_REDIS


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("REDIS_URL", "redis://8.8.8.8:6379/0"),
        ("REDIS_URL", "rediss://[2001:4860:4860::8888]:6379"),
        ("REDIS_URL", "redis://user@8.8.8.8"),
        ("REDIS_URL", "redis://[::ffff:8.8.8.8]:6379"),
        ("REDIS_PUBSUB_URL", "redis://8.8.8.8/1"),
        ("MONGODB_URL", "mongodb://10.0.0.1:27017,8.8.8.8:27017/machina"),
        ("MONGODB_URL", "mongodb+srv://cluster.example.org/machina"),
    ],
)
def test_production_refuses_a_service_without_password_beyond_private_networks(
    variable: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", LOCAL_REDIS)
    monkeypatch.setenv("MONGODB_URL", "mongodb://localhost/machina")
    monkeypatch.setenv(variable, url)
    with pytest.raises(SettingsInvalid, match=rf"^{variable}=.*MACHINA_ALLOW_OPEN_SERVICES=1"):
        load_service_settings(None)
    monkeypatch.setenv("MACHINA_ALLOW_OPEN_SERVICES", "1")
    load_service_settings(None)
    monkeypatch.delenv("MACHINA_ALLOW_OPEN_SERVICES")
    monkeypatch.setenv("MACHINA_ENVIRONMENT", "dev")
    load_service_settings(None)


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("REDIS_URL", "redis://127.0.0.1"),
        ("REDIS_URL", "redis://[::1]:6379/0"),
        ("REDIS_URL", "redis://192.168.1.5:6379"),
        ("REDIS_URL", "redis://100.64.0.9:6379"),
        ("REDIS_URL", "redis://:secret@8.8.8.8:6379/0"),
        ("REDIS_URL", "redis://8.8.8.8:6379/0?password=secret"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("MONGODB_URL", "mongodb://10.1.2.3,10.1.2.4:27018/machina?replicaSet=r"),
        ("MONGODB_URL", "mongodb://me:secret@8.8.8.8/machina"),
        ("MONGODB_URL", "mongodb+srv://me:s%40t@cluster.example.org/machina"),
        ("MONGODB_URL", "mongodb://8.8.8.8/?tls=true&authMechanism=MONGODB-X509"),
        ("MONGODB_URL", "mongodb://%2Ftmp%2Fmongodb-27017.sock/machina"),
    ],
)
def test_production_accepts_a_service_that_is_near_or_asks_for_a_password(
    variable: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", LOCAL_REDIS)
    monkeypatch.setenv("MONGODB_URL", "mongodb://localhost/machina")
    monkeypatch.setenv(variable, url)
    assert url in (
        (settings := load_service_settings(None)).redis_url,
        settings.mongodb_url,
    )
