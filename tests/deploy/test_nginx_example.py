"""deploy/nginx.conf: what streams need of a proxy, and that its limits go with ours."""

from __future__ import annotations

import re
from typing import Final

from machina.settings import Settings
from tests.deploy.production import ROOT
from tests.deploy.variables import unknown_variables

FILE: Final = ROOT / "deploy" / "nginx.conf"
UNITS: Final = {"s": 1, "m": 1024**2}


def directives() -> dict[str, str]:
    """The value of each directive; where one is repeated, the last."""
    text = re.sub(r"#.*", "", FILE.read_text())
    assert text.count("{") == text.count("}")
    statements = (item.split(None, 1) for item in re.split(r"[;{}]", text) if item.strip())
    return {name: " ".join(rest[0].split()) if rest else "" for name, *rest in statements}


def measure(value: str) -> int:
    return int(value[:-1]) * UNITS[value[-1]]


def default(field: str) -> float:
    return float(Settings.model_fields[field].default)


def test_an_event_is_passed_on_when_it_comes() -> None:
    found = directives()
    assert found["proxy_buffering"] == found["proxy_cache"] == found["gzip"] == "off"
    assert found["proxy_http_version"] == "1.1"
    assert 'proxy_set_header Connection "";' in FILE.read_text()


def test_a_quiet_stream_is_not_cut_and_a_synchronous_call_is_waited_for() -> None:
    silence = measure(directives()["proxy_read_timeout"])
    assert silence > 2 * default("heartbeat_seconds")
    assert silence > default("sync_wait_seconds")


def test_a_client_that_does_not_read_is_let_go_as_the_api_does() -> None:
    assert measure(directives()["send_timeout"]) == default("send_timeout_seconds")


def test_too_large_a_body_is_refused_by_the_api_in_its_own_words() -> None:
    assert measure(directives()["client_max_body_size"]) > default("max_body_bytes")


def test_a_post_that_was_sent_is_not_sent_to_another_api() -> None:
    assert "non_idempotent" not in directives()["proxy_next_upstream"].split()


def test_it_leads_to_the_port_and_names_settings_that_exist() -> None:
    ports = set(re.findall(r"server api\d:(\d+);", FILE.read_text()))
    assert ports == {str(Settings.model_fields["port"].default)}
    assert unknown_variables(FILE.read_text()) == set()
