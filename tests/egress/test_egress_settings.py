"""What the operator may write into MACHINA_EGRESS_ALLOW, and what `dev` opens."""

from __future__ import annotations

import pytest

from machina.egress import EgressClient, EgressPolicy
from machina.errors import EgressFailed, SettingsInvalid
from machina.settings import Settings, load_settings
from machina.settings.egress import read_place


def settings(**more: object) -> Settings:
    return load_settings(environment="production", **more)


def is_open(policy: EgressPolicy, host: str) -> bool:
    try:
        policy.check_host(host, 80)
    except EgressFailed:
        return False
    return True


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("private", "word"),
        (" ANY ", "word"),
        ("none", "word"),
        ("api.internal", "host"),
        ("api_v2.internal.", "host"),
        ("localhost:8080", "host"),
        ("10.0.0.0/8", "network"),
        ("10.0.0.1", "network"),
        ("10.0.0.1:80", "network"),
        ("::1", "network"),
        ("[::1]:80", "network"),
        ("fd00::/8", "network"),
    ],
)
def test_an_entry_is_read(entry: str, shown: str) -> None:
    assert getattr(read_place(entry), shown) is not None


@pytest.mark.parametrize(
    "entry",
    [
        "*", "*.internal", "http://a.test", "a.test/path", "a.test:0", "a.test:99999", "a.test:x",
        "10.0.0.1/8", "10.0.0.0/99", "127.1", "2130706433", "a b", "-a", "user@a.test", ":80", "",
    ],
)  # fmt: skip
def test_an_entry_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="'"):
        read_place(entry)


def test_a_wrong_entry_stops_the_process_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINA_EGRESS_ALLOW", "api.internal, *.evil")
    with pytest.raises(SettingsInvalid, match=r"MACHINA_EGRESS_ALLOW=.*\*\.evil"):
        settings()
    monkeypatch.delenv("MACHINA_EGRESS_ALLOW")
    monkeypatch.setenv("MACHINA_EGRESS_PORTS", "80,99999")
    with pytest.raises(SettingsInvalid, match="MACHINA_EGRESS_PORTS"):
        settings()


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINA_EGRESS_ALLOW", "api.internal, 10.0.0.0/8,")
    monkeypatch.setenv("MACHINA_EGRESS_PORTS", "80, 443")
    read = settings()
    assert read.egress_allow == ("api.internal", "10.0.0.0/8")
    assert read.egress_ports == (80, 443)


def test_production_opens_the_public_internet_only() -> None:
    policy = EgressPolicy.from_settings(settings())
    assert is_open(policy, "93.184.216.34")
    assert not is_open(policy, "127.0.0.1")
    assert not is_open(policy, "192.168.1.1")


def test_dev_opens_loopback_and_private_networks_unless_told() -> None:
    dev = EgressPolicy.from_settings(load_settings(environment="dev"))
    assert is_open(dev, "127.0.0.1")
    assert is_open(dev, "192.168.1.1")
    assert not is_open(dev, "169.254.169.254")
    told = EgressPolicy.from_settings(load_settings(environment="dev", egress_allow=("none",)))
    assert not is_open(told, "127.0.0.1")


@pytest.fixture
def narrow() -> Settings:
    return settings(egress_allow=("10.0.0.0/8",), egress_total_seconds=7)


async def test_the_client_takes_its_policy_from_the_settings(narrow: Settings) -> None:
    client = EgressClient.from_settings(narrow)
    assert await client.check("http://10.1.1.1/") == ["10.1.1.1"]
    with pytest.raises(EgressFailed):
        await client.check("http://127.0.0.1/")
    await client.aclose()
