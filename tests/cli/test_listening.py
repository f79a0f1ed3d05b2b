from __future__ import annotations

import socket

import pytest

from machina.cli.listening import free_port, make_url, open_listener
from machina.errors import SettingsInvalid


def test_a_taken_port_is_refused_by_number_and_option() -> None:
    with open_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(SettingsInvalid, match=rf"Port {port} .* is taken.*--port"):
            free_port("127.0.0.1", port)
        with pytest.raises(SettingsInvalid, match="is taken"):
            open_listener("127.0.0.1", port, shared=True)
    assert free_port("127.0.0.1", port) == port


def test_processes_of_one_api_share_a_port_and_nobody_else_gets_it() -> None:
    first = open_listener("127.0.0.1", 0, shared=True)
    port = first.getsockname()[1]
    with first, open_listener("127.0.0.1", port, shared=True) as second:
        second.listen()
        with pytest.raises(SettingsInvalid, match="is taken"):
            free_port("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(SettingsInvalid, match=r"192\.0\.2\.1:5003 cannot be listened on.*--host"):
        open_listener("192.0.2.1", 5003)


def test_a_name_that_does_not_resolve_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(SettingsInvalid, match=r"MACHINA_HOST=no\.such\.host: Name or service"):
        open_listener("no.such.host", 5003)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("example.org", "http://example.org:80"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_use(host: str, url: str) -> None:
    assert make_url(host, 80) == url
