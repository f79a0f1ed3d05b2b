from __future__ import annotations

from contextlib import closing

import pytest
from structlog.testing import capture_logs

from machina.cli.redis_check import check_redis
from machina.errors import SettingsInvalid
from tests.services import RedisServer


def test_a_redis_as_it_should_be_passes_in_silence(redis_server: RedisServer) -> None:
    with capture_logs() as logs:
        check_redis("REDIS_URL", redis_server.url)
    assert logs == []


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_may_evict_is_refused_with_the_command_that_repairs_it(
    policy: str, own_redis: RedisServer
) -> None:
    with closing(own_redis.connect()) as client:
        client.config_set("maxmemory-policy", policy)
    with pytest.raises(SettingsInvalid, match=rf"REDIS_URL=.*{policy}.*CONFIG SET") as refused:
        check_redis("REDIS_URL", own_redis.url)
    assert own_redis.url in refused.value.message


def test_a_redis_that_forgets_is_warned_of(own_redis: RedisServer) -> None:
    with closing(own_redis.connect()) as client:
        client.config_set("appendonly", "no")
    with capture_logs() as logs:
        check_redis("REDIS_PUBSUB_URL", own_redis.url)
    assert [(line["event"], line["variable"]) for line in logs] == [
        ("redis.forgets", "REDIS_PUBSUB_URL")
    ]


def test_a_redis_that_does_not_answer_is_let_through_with_a_warning() -> None:
    with capture_logs() as logs:
        check_redis("REDIS_URL", "unix:///nonexistent/redis.sock")
    assert [line["event"] for line in logs] == ["redis.not_checked"]


def test_an_address_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(
        SettingsInvalid, match=r"REDIS_URL=redis://me:\*\*\*@host:port: "
    ) as refused:
        check_redis("REDIS_URL", "redis://me:secret@host:port")
    assert "secret" not in refused.value.message
