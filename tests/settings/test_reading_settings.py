from __future__ import annotations

from pathlib import Path

import pytest

from machina.errors import SettingsInvalid
from machina.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_setting_has_a_default() -> None:
    settings = load_settings()
    assert settings.port == 5003
    assert settings.environment == "production"
    assert settings.redis_url is None


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("MACHINA_PORT=1\nMACHINA_HOST=h1\nLOG_LEVEL=DEBUG\nOTHER=x\n")
    monkeypatch.setenv("MACHINA_PORT", "2")
    monkeypatch.setenv("MACHINA_HOST", "h2")
    settings = load_settings(port=3, host=None)
    assert (settings.port, settings.host, settings.log_level) == (3, "h2", "debug")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("MACHINA_PORT", "")
    assert load_settings().redis_url is None
    assert load_settings().port == 5003


def test_another_env_file_can_be_named_and_none_need_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("MACHINA_PORT=1\n")
    (tmp_path / "other").write_text("MACHINA_PORT=2\n")
    monkeypatch.setenv("MACHINA_ENV_FILE", "other")
    assert load_settings().port == 2
    monkeypatch.setenv("MACHINA_ENV_FILE", "/dev/null")
    assert load_settings().port == 5003
    monkeypatch.setenv("MACHINA_ENV_FILE", "missing")
    assert load_settings().port == 5003


def test_an_env_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MACHINA_PORT=\xff\n")
    with pytest.raises(SettingsInvalid, match=r"MACHINA_ENV_FILE=\.env: cannot be read"):
        load_settings()


def test_every_bad_value_is_named_in_one_message_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "http://me:secr@t@host/0")
    monkeypatch.setenv("MACHINA_PORT", "99999")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    monkeypatch.setenv("MACHINA_CORS_ORIGINS", "[1")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(max_attempts=0)
    lines = refused.value.message.splitlines()
    assert [line.partition("=")[0].strip() for line in lines[1:-1]] == [
        "LOG_LEVEL",
        "MACHINA_CORS_ORIGINS",
        "MACHINA_MAX_ATTEMPTS",
        "MACHINA_PORT",
        "REDIS_URL",
    ]
    assert lines[5] == (
        "  REDIS_URL=http://me:***@host/0: must begin with redis:// or rediss:// or unix://, "
        "as redis://localhost:6379/0"
    )
    assert "secr" not in refused.value.message
    assert "docs/settings.md" in lines[-1]


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("*", ("*",)),
        ("https://a.example, https://b.example", ("https://a.example", "https://b.example")),
        ('["https://a.example"]', ("https://a.example",)),
    ],
)
def test_origins_are_listed_with_commas_or_as_json(
    text: str, origins: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MACHINA_CORS_ORIGINS", text)
    assert load_settings().cors_origins == origins


def test_the_event_log_shares_the_queues_redis_unless_it_has_its_own() -> None:
    assert load_settings(redis_url="redis://a").log_redis_url == "redis://a"
    both = load_settings(redis_url="redis://a", redis_pubsub_url="redis://b")
    assert both.log_redis_url == "redis://b"


def test_a_secret_does_not_show_when_settings_are_printed() -> None:
    assert "sk-secret" not in repr(load_settings(openai_api_key="sk-secret"))
