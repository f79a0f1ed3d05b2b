"""The guarded client: what it sends, follows, and refuses to take."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from machina.egress import (
    EgressClient,
    EgressLimits,
    EgressPolicy,
    EgressRequest,
    EgressResponse,
    is_ours,
)
from machina.egress.redirects import follow
from machina.errors import EgressFailed
from tests.egress.conftest import everything_is_here
from tests.egress.server import NO_CERTIFICATES, Answer, Seen, Server, ok

SECRET = "sk-canary-0123456789"


def get(url: str, **more: object) -> EgressRequest:
    return replace(EgressRequest("GET", url), **more)  # type: ignore[arg-type]  # fields by name


async def code_of(client: EgressClient, request: EgressRequest) -> str:
    """The code of the failure that a request must be."""
    with pytest.raises(EgressFailed) as failed:
        await client.send(request)
    assert SECRET not in failed.value.message
    return failed.value.code


def redirects(**targets: str) -> Callable[[Seen], Answer]:
    """Answers paths with redirects: `hop="301 http://…"`; anything else with what it was sent."""

    def answer(seen: Seen) -> Answer:
        target = targets.get(seen.path.strip("/"))
        if target is None:
            return ok({"method": seen.method, "path": seen.path})
        status, _, location = target.partition(" ")
        return Answer(int(status), headers={"Location": location})

    return answer


async def test_the_answer_comes_back_whole_whatever_its_status(
    client: EgressClient, server: Server
) -> None:
    server.answer = lambda seen: Answer(418, b"teapot", {"X-Thing": "1"})

    response = await client.send(
        EgressRequest("POST", server.url("/pot?a=1"), {"X-Key": SECRET}, b"tea")
    )

    assert (response.status, response.body, response.headers["x-thing"]) == (418, b"teapot", "1")
    seen = server.last
    assert (seen.method, seen.target, seen.body) == ("POST", "/pot?a=1", b"tea")
    assert seen.headers["x-key"] == SECRET
    assert seen.headers["user-agent"].startswith("machina-server/")
    assert "cookie" not in seen.headers


async def test_a_path_is_sent_as_it_is_encoded(client: EgressClient, server: Server) -> None:
    target = "/a%2Fb/ns:item:5/%20x?q=a%26b&r=%2B1&s=a,b"

    await client.send(get(server.url(target)))

    assert server.last.target == target


async def test_calls_share_connections_and_no_cookies(client: EgressClient, server: Server) -> None:
    server.answer = lambda seen: ok({}, Set_Cookie="session=1; Path=/")

    for _ in range(3):
        await client.send(get(server.url()))

    assert server.connections == 1
    assert all("cookie" not in seen.headers for seen in server.seen)


async def test_proxies_of_the_environment_are_not_heeded(
    client: EgressClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert (await client.send(get(server.url()))).status == 200


@pytest.mark.parametrize(
    "header",
    [
        ("X-A", "1\r\nX-Evil: 1"),
        ("X-A", "1\nFLUSHALL"),
        ("X-A", "1\rb"),
        ("X-A", "a\x00b"),
        ("X-A", "schön"),
        ("X-A", "x" * 20_000),
        ("X-A\r\nX-Evil", "1"),
        ("X A", "1"),
        ("X-A:", "1"),
        ("", "1"),
        ("Host", "evil.test"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "upgrade"),
    ],
)
async def test_a_header_that_could_split_a_request_is_refused(
    client: EgressClient, server: Server, header: tuple[str, str]
) -> None:
    assert await code_of(client, get(server.url(), headers=dict([header]))) == "egress_refused"
    assert server.connections == 0


@pytest.mark.parametrize("method", ["GET / HTTP/1.1\r\nX: y\r\n\r\n", "get", "", "G T"])
async def test_a_method_is_a_word(client: EgressClient, server: Server, method: str) -> None:
    assert await code_of(client, EgressRequest(method, server.url())) == "egress_refused"
    assert server.connections == 0


def test_headers_of_the_connection_belong_to_the_client() -> None:
    assert is_ours("Content-Length")
    assert not is_ours("Content-Type")


async def test_redirects_are_followed_three_times_at_most(
    client: EgressClient, server: Server
) -> None:
    server.answer = redirects(one="302 /two", two="301 three", three="307 /end")

    response = await client.send(get(server.url("/one")))

    assert response.url == server.url("/end")
    assert [seen.path for seen in server.seen] == ["/one", "/two", "/three", "/end"]

    server.answer = redirects(loop="302 /loop")
    assert await code_of(client, get(server.url("/loop"))) == "egress_broken"
    assert [seen.path for seen in server.seen[4:]] == ["/loop"] * 4


async def test_a_redirect_is_shown_when_none_may_be_followed(
    client: EgressClient, server: Server
) -> None:
    server.answer = redirects(one="302 /two")

    response = await client.send(get(server.url("/one"), redirects=0))

    assert (response.status, response.headers["location"]) == (302, "/two")


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest",
        "http://10.0.0.1/",
        "http://[::1]/",
        "file:///etc/passwd",
        "http://user@a.test/",
        "gopher://a.test/",
        "http://2130706433/",
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(
    client: EgressClient, server: Server, target: str
) -> None:
    server.answer = redirects(hop=f"302 {target}")

    assert await code_of(client, get(server.url("/hop"))) == "egress_refused"
    assert len(server.seen) == 1


@pytest.mark.parametrize("target", ["http://[::", "http://a.test:x/"])
async def test_a_redirect_to_nonsense_is_not_followed(
    client: EgressClient, server: Server, target: str
) -> None:
    server.answer = redirects(hop=f"302 {target}")

    assert await code_of(client, get(server.url("/hop"))) == "egress_broken"
    answered = EgressResponse(302, {"location": target}, b"", server.url())
    with pytest.raises(EgressFailed, match="what is no URL"):
        follow(get(server.url()), answered)


async def test_a_redirect_to_loopback_reaches_nothing() -> None:
    guarded = EgressClient(EgressPolicy.of("a.test"), None, everything_is_here)
    async with Server() as canary, Server(redirects(hop="302 http://x/")) as server:
        server.answer = redirects(hop=f"302 {canary.url()}")
        assert await code_of(guarded, get(server.url("/hop", host="a.test"))) == "egress_refused"
        server.answer = redirects(hop=f"302 {canary.url(host='c.test')}")
        assert await code_of(guarded, get(server.url("/hop", host="a.test"))) == "egress_refused"
        assert canary.connections == 0
    await guarded.aclose()


async def test_another_origin_gets_no_credentials(client: EgressClient, server: Server) -> None:
    server.answer = redirects(hop=f"302 {server.url('/end', host='b.test')}")
    headers = {"Authorization": SECRET, "X-Api-Key": SECRET, "Cookie": SECRET, "Accept": "a/b"}

    await client.send(get(server.url("/hop", host="a.test"), headers=headers))

    assert SECRET in str(server.seen[0].headers)
    assert SECRET not in str(server.seen[1].headers)
    assert server.seen[1].headers["accept"] == "a/b"


async def test_the_same_origin_keeps_the_headers(client: EgressClient, server: Server) -> None:
    server.answer = redirects(hop=f"308 {server.url('/end')}")

    await client.send(EgressRequest("POST", server.url("/hop"), {"X-Api-Key": SECRET}, b"body"))

    assert server.last.headers["x-api-key"] == SECRET
    assert (server.last.method, server.last.body) == ("POST", b"body")


async def test_a_body_does_not_go_to_another_origin(client: EgressClient, server: Server) -> None:
    server.answer = redirects(hop=f"307 {server.url('/end', host='b.test')}")
    request = EgressRequest("POST", server.url("/hop", host="a.test"), {}, b"password")

    assert await code_of(client, request) == "egress_refused"
    assert len(server.seen) == 1


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET")])
async def test_a_post_becomes_a_get_behind_an_old_redirect(
    client: EgressClient, server: Server, status: int, method: str
) -> None:
    server.answer = redirects(hop=f"{status} /end")

    await client.send(
        EgressRequest("POST", server.url("/hop"), {"Content-Type": "text/plain"}, b"x")
    )

    assert (server.last.method, server.last.body) == (method, b"")
    assert "content-type" not in server.last.headers


@pytest.mark.parametrize("wbits", [31, 15, -15])
async def test_a_compressed_answer_is_decompressed(
    client: EgressClient, server: Server, wbits: int
) -> None:
    text = "".join(f"{number} " for number in range(50_000)).encode()
    packer = zlib.compressobj(wbits=wbits)
    packed = packer.compress(text) + packer.flush()
    name = "gzip" if wbits == 31 else "deflate"
    server.answer = lambda seen: Answer(200, packed, {"Content-Encoding": name})

    assert (await client.send(get(server.url()))).body == text


async def test_several_gzip_members_and_padding_are_one_answer(
    client: EgressClient, server: Server
) -> None:
    body = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 8
    server.answer = lambda seen: Answer(200, body, {"Content-Encoding": "x-gzip"})

    assert (await client.send(get(server.url()))).body == b"one two"


async def test_a_body_of_exactly_one_piece_is_whole(client: EgressClient, server: Server) -> None:
    text = b"x" * (64 * 1024)
    server.answer = lambda seen: Answer(200, gzip.compress(text), {"Content-Encoding": "gzip"})

    assert (await client.send(get(server.url()))).body == text


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"this is not gzip", "gzip"),
        (b"\x78\x9cgarbage", "deflate"),
        (gzip.compress(b"cut short" * 100)[:-20], "gzip"),
        (b"whatever", "br"),
        (b"whatever", "gzip, gzip"),
    ],
)
async def test_an_answer_that_cannot_be_decompressed_is_broken(
    client: EgressClient, server: Server, body: bytes, encoding: str
) -> None:
    server.answer = lambda seen: Answer(200, body, {"Content-Encoding": encoding})

    assert await code_of(client, get(server.url())) == "egress_broken"


async def test_an_empty_answer_may_claim_to_be_compressed(
    client: EgressClient, server: Server
) -> None:
    server.answer = lambda seen: Answer(200, b"", {"Content-Encoding": "gzip"})

    assert (await client.send(get(server.url()))).body == b""


async def test_a_gzip_bomb_is_dropped_at_its_ratio(client: EgressClient, server: Server) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    server.answer = lambda seen: Answer(200, bomb, {"Content-Encoding": "gzip"})

    with pytest.raises(EgressFailed, match="100-fold") as failed:
        await client.send(get(server.url(), max_bytes=10_000_000))
    assert failed.value.code == "egress_too_large"


async def test_a_small_answer_may_compress_well(client: EgressClient, server: Server) -> None:
    text = b"\0" * 200_000
    server.answer = lambda seen: Answer(200, gzip.compress(text), {"Content-Encoding": "gzip"})

    assert (await client.send(get(server.url()))).body == text


async def test_an_answer_that_says_it_is_too_large_is_not_read(
    client: EgressClient, server: Server
) -> None:
    server.answer = lambda seen: Answer(200, b"", {"Content-Length": "99999999"})

    assert await code_of(client, get(server.url())) == "egress_too_large"


async def test_the_length_in_the_answer_to_a_head_does_not_matter(
    client: EgressClient, server: Server
) -> None:
    server.answer = lambda seen: Answer(200, b"", {"Content-Length": "99999999"})

    assert (await client.send(EgressRequest("HEAD", server.url()))).status == 200


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 10_000


async def drip() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0.02)


async def silence() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.sleep(30)


async def test_an_endless_answer_ends_at_the_limit(client: EgressClient, server: Server) -> None:
    server.answer = lambda seen: Answer(stream=endless)

    assert await code_of(client, get(server.url())) == "egress_too_large"
    assert await code_of(client, get(server.url(), max_bytes=10)) == "egress_too_large"


async def test_an_answer_that_drips_ends_with_the_clock(
    client: EgressClient, server: Server
) -> None:
    server.answer = lambda seen: Answer(stream=drip)

    assert await code_of(client, get(server.url(), total_seconds=0.2)) == "egress_timeout"


async def test_silence_ends_before_the_clock(server: Server) -> None:
    guarded = EgressClient(
        EgressPolicy.of("127.0.0.1"), EgressLimits(total_seconds=9, idle_seconds=0.2)
    )
    server.answer = lambda seen: Answer(stream=silence)

    with pytest.raises(EgressFailed, match="was silent") as failed:
        await guarded.send(get(server.url()))
    assert failed.value.code == "egress_timeout"
    await guarded.aclose()


async def test_a_connection_that_never_comes_about_ends_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(30)
        return []

    monkeypatch.setattr("machina.egress.client.CONNECT_SECONDS", 0.1)
    guarded = EgressClient(EgressPolicy(), None, never, NO_CERTIFICATES)
    with pytest.raises(EgressFailed, match="could not be reached within") as failed:
        await guarded.send(get("http://a.test/"))
    assert (failed.value.code, failed.value.retryable) == ("egress_timeout", True)
    await guarded.aclose()


async def test_nobody_listening_is_said(client: EgressClient, server: Server) -> None:
    port = server.port
    await server.__aexit__(None, None, None)

    with pytest.raises(EgressFailed, match="refuses the connection") as failed:
        await client.send(get(f"http://127.0.0.1:{port}/?key={SECRET}"))
    assert SECRET not in failed.value.message
    assert failed.value.retryable


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"",
    ],
)
async def test_an_answer_that_is_no_http_is_broken(client: EgressClient, raw: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        assert await code_of(client, get(f"http://127.0.0.1:{port}/")) == "egress_broken"


async def test_an_answer_in_another_protocol_is_called_so(client: EgressClient) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR unknown command 'GET'\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(EgressFailed, match="not HTTP as we know it"):
            await client.send(get(f"http://127.0.0.1:{port}/"))


async def test_a_connection_that_is_cut_is_broken(client: EgressClient, server: Server) -> None:
    server.answer = lambda seen: Answer(
        200, b"short", {"Content-Length": "100", "Connection": "close"}
    )

    with pytest.raises(EgressFailed, match="cut the connection") as failed:
        await client.send(get(server.url()))
    assert failed.value.retryable


async def test_headers_of_an_answer_are_bounded(client: EgressClient, server: Server) -> None:
    server.answer = lambda seen: Answer(200, b"", {"X-Long": "x" * 100_000})

    assert await code_of(client, get(server.url())) == "egress_broken"


async def test_tls_keeps_the_name_while_it_connects_to_the_address(tmp_path: Path) -> None:
    serving, trusting = make_certificates(tmp_path, "a.test")
    named: list[str] = []
    serving.sni_callback = lambda connection, name, context: named.append(str(name))
    guarded = EgressClient(
        EgressPolicy.of("a.test", "b.test"), None, everything_is_here, certificates=trusting
    )
    async with Server(tls=serving) as server:
        assert (await guarded.send(get(server.url(host="a.test")))).status == 200
        assert server.last.headers["host"] == f"a.test:{server.port}"
        assert named == ["a.test"]
        with pytest.raises(EgressFailed, match="certificate"):
            await guarded.send(get(server.url(host="b.test")))
    await guarded.aclose()


def make_certificates(directory: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server of this name and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    trusting = ssl.create_default_context(
        cadata=certificate.public_bytes(serialization.Encoding.PEM).decode()
    )
    return serving, trusting
