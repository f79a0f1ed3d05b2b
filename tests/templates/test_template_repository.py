"""Which repositories may be named, and where a credential in a URL goes."""

from __future__ import annotations

import base64
import socket
from typing import Any

import pytest

from machina.egress.policy import EgressPolicy
from machina.templates.repository import GitRefused, check_branch, pin, read_repository

TOKEN = "ghp_canary"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "owner/repository",
        "git@github.com:owner/repository.git",
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "file:///etc",
        "http://github.com/o/r",
        "ssh://-oProxyCommand=touch/x",
        "git://github.com/o/r",
        "ftp://github.com/o/r",
        "--upload-pack=touch x",
        "-u",
        "https://",
        "https://host name/x",
        "https://github.com/o/r?x=1",
        "https://github.com/o/r#x",
        "https://good.test\\@evil.test/x",
        "https://a@b@evil.test/x",
        "https://0x7f.1/x",
        "https://2130706433/x",
        "https://127.1/x",
        "https://github.com/\nx",
        "https://github.com/" + "x" * 2_000,
        "https://good.test:0/x",
    ],
)
def test_only_plain_https_urls_name_a_repository(url: str) -> None:
    with pytest.raises(GitRefused):
        read_repository(url, token=None, allowed=())


def test_other_protocols_need_the_operators_leave() -> None:
    assert read_repository("file:///srv/r", token=None, allowed=("file",)).scheme == "file"
    plain = read_repository("http://h.test/r", token=None, allowed=("http",))
    assert (plain.scheme, plain.host, plain.port) == ("http", "h.test", 80)
    with pytest.raises(GitRefused, match="https only"):
        read_repository("http://h.test/r", token=TOKEN, allowed=("http",))


@pytest.mark.parametrize(
    ("url", "token", "credential"),
    [
        ("https://h.test/o/r.git", TOKEN, f"x-access-token:{TOKEN}"),
        (f"https://{TOKEN}@h.test/o/r.git", None, f"x-access-token:{TOKEN}"),
        (f"https://oauth2:{TOKEN}@h.test/o/r.git", None, f"oauth2:{TOKEN}"),
        ("https://old:word@h.test/o/r.git", TOKEN, f"x-access-token:{TOKEN}"),
    ],
)
def test_a_credential_is_taken_out_of_the_url_and_shown_nowhere(
    url: str, token: str | None, credential: str
) -> None:
    repository = read_repository(url, token=token, allowed=())
    assert repository.url == "https://h.test/o/r.git"
    encoded = base64.b64encode(credential.encode()).decode()
    assert repository.authorization == f"Basic {encoded}"
    assert TOKEN not in repr(repository)
    assert encoded not in repr(repository)


def test_a_public_repository_has_no_credential() -> None:
    assert read_repository("https://h.test/o/r", token=None, allowed=()).authorization is None
    assert read_repository("https://@h.test/o/r", token="", allowed=()).authorization is None


@pytest.mark.parametrize("token", ["a b", "a\nHost: evil", "é", "x" * 5_000])
def test_a_token_that_is_none_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(GitRefused) as refused:
        read_repository("https://h.test/o/r", token=token, allowed=())
    assert token not in refused.value.message


def test_branches_are_names_and_no_options() -> None:
    for branch in ("", "main", "release/1.0", "v1.0.0", "feature_x@2"):
        assert check_branch(branch) == branch
    for branch in ("-x", "--upload-pack=x", "a..b", "a b", "a/", "a;b", "x" * 300, "a\nb", "$(x)"):
        with pytest.raises(GitRefused):
            check_branch(branch)


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Makes every name stand for these addresses; returns the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        if not addresses:
            raise socket.gaierror(-2, "unknown")
        return [(2, 1, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def pinned(url: str, *entries: str) -> str | None:
    return pin(read_repository(url, token=None, allowed=("file",)), EgressPolicy.of(*entries))


def test_what_was_checked_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, "93.184.216.34", "2606:4700::1111", "93.184.216.34")
    assert pinned("https://git.test/x") == "git.test:443:93.184.216.34,[2606:4700::1111]"
    assert pinned("https://git.test:8443/x") == ("git.test:8443:93.184.216.34,[2606:4700::1111]")
    assert asked == ["git.test", "git.test"]


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("93.184.216.34", "10.0.0.1"), ("169.254.169.254",), ("::ffff:127.0.0.1",)],
)
def test_a_name_with_any_address_inside_is_refused(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, *addresses)
    with pytest.raises(GitRefused, match="refused"):
        pinned("https://git.test/x")


def test_addresses_in_the_url_are_checked_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, "93.184.216.34")
    for url in ("https://127.0.0.1/x", "https://[::1]/x", "https://10.0.0.1:8443/x"):
        with pytest.raises(GitRefused):
            pinned(url)
    assert pinned("https://127.0.0.1/x", "private") is None
    assert pinned("https://93.184.216.34/x") is None
    assert pinned("file:///srv/x") is None
    assert asked == []


def test_a_host_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch)
    with pytest.raises(GitRefused, match="has no address"):
        pinned("https://nowhere.test/x")
