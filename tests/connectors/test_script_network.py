"""The way out of scripts: only what the egress policy allows, however a script tries."""

from __future__ import annotations

import errno
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import pytest_asyncio

from machina.connectors.scripts import ScriptConnector
from tests.connectors.scripting import body, failure, opened, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A service on loopback, as Redis or a metadata service would be one."""
    server = HTTPServer(("127.0.0.1", 0), _Hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["3", "2"])
async def closed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ScriptConnector]:
    """Scripts that may reach the public internet and nothing else."""
    place = tmp_path_factory.mktemp(f"closed{request.param}")
    async with opened(place, script_sandbox=request.param, egress_allow=("none",)) as connector:
        assert connector.describe()["network"] == "guarded"
        yield connector


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["3", "2"])
async def private(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ScriptConnector]:
    """Scripts that may reach private networks as well, as in `dev`."""
    place = tmp_path_factory.mktemp(f"private{request.param}")
    async with opened(place, script_sandbox=request.param) as connector:
        yield connector


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["3", "2", "1"])
async def dark(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ScriptConnector]:
    """Scripts without any network."""
    place = tmp_path_factory.mktemp(f"dark{request.param}")
    async with opened(place, script_sandbox=request.param, script_network="off") as connector:
        assert connector.describe()["network"] == "off"
        yield connector


GETTERS = """
import socket

def by_urllib(place, number):
    import urllib.request
    return urllib.request.urlopen(f"http://{place}:{number}/").read().decode()

def by_requests(place, number):
    import requests
    return requests.get(f"http://{place}:{number}/").text

def by_httpx(place, number):
    import httpx
    return httpx.get(f"http://{place}:{number}/").text

def by_http(place, number):
    import http.client
    connection = http.client.HTTPConnection(place, number)
    connection.request("GET", "/")
    return connection.getresponse().read().decode()

def by_socket(place, number):
    with socket.create_connection((place, number), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        return b"".join(iter(lambda: connection.recv(99), b"")).decode()[-5:]

def by_asyncio(place, number):
    import asyncio
    async def get():
        reader, writer = await asyncio.open_connection(place, number)
        writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
        answer = await reader.read()
        writer.close()
        return answer.decode()[-5:]
    return asyncio.run(get())

WAYS = [by_urllib, by_requests, by_httpx, by_http, by_socket, by_asyncio]

def everyone(request):
    got = {}
    for way in WAYS:
        try:
            got[way.__name__] = way(request["params"]["host"], request["params"]["port"])
        except Exception as error:
            got[way.__name__] = str(error)
    return {"status": True, "data": got}

def one(request):
    return {"status": True, "data": by_socket(**request["params"])}
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_every_way_to_connect_arrives_where_the_policy_allows_it(
    private: ScriptConnector, port: int, host: str
) -> None:
    got = await run(private, GETTERS, "everyone", inputs={"host": host, "port": port})
    assert len(got) == 6
    assert set(got.values()) == {"hello"}


async def test_a_refused_connection_names_the_setting_that_would_allow_it(
    closed: ScriptConnector, port: int
) -> None:
    got = await run(closed, GETTERS, "everyone", inputs={"host": "127.0.0.1", "port": port})
    told = {way: "MACHINA_EGRESS_ALLOW" in text for way, text in got.items()}
    assert "hello" not in got.values()
    assert told == dict.fromkeys(got, True)


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.google.internal", "10.0.0.1"])
async def test_metadata_and_private_networks_are_refused(
    closed: ScriptConnector, host: str
) -> None:
    failed = await failure(closed, GETTERS, "one", inputs={"place": host, "number": 80})
    assert failed.code == "connector_failed"
    assert "PermissionError" in failed.message
    assert "may not be called" in failed.message


ROUND_THE_GATE = {
    "tcp": "connect(new(), ('127.0.0.1', port))",
    "ipv6": "connect(new(socket.AF_INET6), ('::1', port))",
    "fast open": "raw.sendto(new(), b'x', 0x20000000, ('127.0.0.1', port))",
    "fast open message": "raw.sendmsg(new(), [b'x'], [], 0x20000000, ('127.0.0.1', port))",
    "udp": "new(socket.AF_INET, socket.SOCK_DGRAM)",
    "multipath": "new(socket.AF_INET, socket.SOCK_STREAM, 262)",
    "icmp": "new(socket.AF_INET, socket.SOCK_RAW, 1)",
    "netlink": "new(socket.AF_NETLINK, socket.SOCK_RAW)",
    "unix": "new(socket.AF_UNIX)",
    "vsock": "new(40, socket.SOCK_STREAM)",
}


async def test_the_kernel_refuses_what_goes_round_the_gate(
    private: ScriptConnector, port: int
) -> None:
    source = body(
        "import socket",
        "port, got = request['params']['port'], {}",
        "raw = new = socket.socket.__base__",  # below Python's own class, which we change
        "connect = raw.connect",
        "for name, line in request['params']['lines'].items():",
        "    try: eval(line, dict(locals()))",
        "    except OSError as error: got[name] = error.errno",
        "    else: got[name] = 'open'",
        "return {'status': True, 'data': got}",
    )
    got = await run(private, source, inputs={"port": port, "lines": ROUND_THE_GATE})
    assert sorted(got) == sorted(ROUND_THE_GATE)
    assert set(got.values()) <= {errno.EPERM, errno.EACCES}


HEADS = {
    "no token": ("CONNECT 127.0.0.1:9 HTTP/1.1\r\n\r\n", "407"),
    "wrong token": (
        "CONNECT 127.0.0.1:9 HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
        "407",
    ),
    "no connect": ("GET http://127.0.0.1:9/ HTTP/1.1\r\n{secret}\r\n\r\n", "405"),
    "no port": ("CONNECT nonsense HTTP/1.1\r\n{secret}\r\n\r\n", "400"),
    "user": ("CONNECT a@127.0.0.1:9 HTTP/1.1\r\n{secret}\r\n\r\n", "400"),
    "refused": ("CONNECT 127.0.0.1:9 HTTP/1.1\r\n{secret}\r\n\r\n", "403"),
    "endless": ("x" * 20_000, ""),
}


async def test_the_gate_serves_tunnels_with_its_token_only(closed: ScriptConnector) -> None:
    source = body(
        "import base64, os, socket, urllib.parse",
        "proxy, answers = urllib.parse.urlsplit(os.environ['https_proxy']), {}",
        "secret = base64.b64encode(f'{proxy.username}:{proxy.password}'.encode()).decode()",
        "for name, head in request['params'].items():",
        "    s = socket.create_connection((proxy.hostname, proxy.port))",
        "    s.sendall(head.replace('{secret}', f'Proxy-Authorization: Basic {secret}').encode())",
        "    try: got = s.recv(99).decode()",
        "    except ConnectionResetError: got = ''",
        "    answers[name] = got.partition(' ')[2][:3]",
        "return {'status': True, 'data': answers}",
    )
    got = await run(closed, source, inputs={name: head for name, (head, _) in HEADS.items()})
    assert got == {name: status for name, (_, status) in HEADS.items()}


async def test_without_network_there_is_no_socket(dark: ScriptConnector) -> None:
    source = body(
        "import socket",
        "got = []",
        "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_UNIX):",
        "    try: got.append(bool(socket.socket(family)))",
        "    except OSError as error: got.append(error.errno)",
        "return {'status': True, 'data': got}",
    )
    assert await run(dark, source) == [errno.EPERM] * 4


@pytest.mark.parametrize("level", ["3", "1"])
async def test_what_an_open_network_does_not_stop_is_said(
    tmp_path_factory: pytest.TempPathFactory, port: int, level: str
) -> None:
    place = tmp_path_factory.mktemp("open")
    async with opened(place, script_sandbox=level, script_network="open") as scripts:
        assert scripts.describe()["network"] == "open"
        assert any("every address" in line for line in scripts.describe()["not_stopped"])
        assert (
            await run(scripts, GETTERS, "one", inputs={"place": "127.0.0.1", "number": port})
            == "hello"
        )
