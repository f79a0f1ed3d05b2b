"""The table of URLs that may not be called, and of those that may."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import pytest

from machina.egress import EgressClient, EgressLimits, EgressPolicy, EgressRequest
from machina.egress.addresses import why_not_public
from machina.errors import EgressFailed
from tests.egress.server import Server

NAMES = {
    "public.test": ["93.184.216.34"],
    "both.test": ["93.184.216.34", "10.0.0.7"],
    "localtest.test": ["127.0.0.1"],
    "localhost": ["127.0.0.1", "::1"],
    "six.test": ["::1"],
    "mapped.test": ["::ffff:127.0.0.1"],
    "link.test": ["169.254.169.254"],
    "private.test": ["192.168.1.1"],
    "cgnat.test": ["100.64.0.1"],
    "zero.test": ["0.0.0.0"],
    "sixtofour.test": ["2002:7f00:1::"],
    "metadata.google.internal": ["93.184.216.34"],
    "internal.test": ["10.1.2.3"],
    "0x7f.1": ["127.0.0.1"],
    "xn--nxasmq6b.test": ["10.0.0.1"],
}

REFUSED = [
    # loopback, written in every way
    "http://127.0.0.1/",
    "http://127.0.0.1:6379/",
    "https://127.255.255.254/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://0X7F.0.0.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://2130706433/",
    "http://127.0.0.1./",
    "http://127。0。0。1/",
    "http://①②⑦.0.0.1/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::5efe:7f00:1]/",
    "http://[2620:0:1::5efe:a00:1]/",
    "http://localhost/",
    "http://localhost./",
    "http://LOCALHOST:8080/",
    "http://localtest.test/",
    "http://six.test/",
    "http://mapped.test/",
    # this network, private, shared, link-local, multicast, reserved
    "http://0.0.0.0/",
    "http://0/",
    "http://[::]/",
    "http://zero.test/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://private.test/",
    "http://both.test/",
    "http://xn--nxasmq6b.test/",
    "http://100.64.0.1/",
    "http://cgnat.test/",
    "http://[fc00::1]/",
    "http://[fd12:3456::1]/",
    "http://[fec0::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://224.0.0.1/",
    "http://[ff02::1]/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://[2001:db8::1]/",
    "http://sixtofour.test/",
    # the credentials of the machine
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://169.254.170.2/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://[fd00:ec2::254]/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://METADATA.google.internal./",
    "http://link.test/",
    # other schemes, and URLs that programs read differently
    "file:///etc/passwd",
    "ftp://public.test/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "unix:///tmp/redis.sock",
    "javascript:alert(1)",
    "//public.test/",
    "public.test/",
    "",
    "http://",
    "http:///path",
    "http://public.test@127.0.0.1/",
    "http://user:pass@public.test/",
    "http://@public.test/",
    "http://127.0.0.1#@public.test/",
    "http://127.0.0.1\\@public.test/",
    "http://public.test\\.evil.test/",
    "http://public.test:0/",
    "http://public.test:99999/",
    "http://public.test:6379:80/",
    "http://[::1/",
    "http://[public.test]/",
    "http://a b/",
    "http://-bad-.test/",
    "http://public.test/\r\nX-Evil: 1",
    "http://public.test/\nFLUSHALL",
    "http://public.test\r\n/",
    "http://public.test/\x00",
    "http://public.test/" + "a" * 20_000,
]

ALLOWED = [
    "http://public.test/",
    "https://PUBLIC.test./path?q=1#fragment",
    "http://93.184.216.34:8080/",
    "http://public.test/#@127.0.0.1/",
    "http://public.test/@127.0.0.1",
    "http://public.test/?u=http://127.0.0.1/",
    "http://[2606:2800:220:1:248:1893:25c8:1946]/",
]


async def answer_names(host: str, port: int) -> Sequence[str]:
    if host not in NAMES:
        raise OSError("no such name")
    return NAMES[host]


def client(*entries: str, ports: Sequence[int] = ()) -> EgressClient:
    return EgressClient(
        EgressPolicy.of(*entries, ports=ports), EgressLimits(total_seconds=5), answer_names
    )


async def test_no_url_of_the_table_is_called() -> None:
    """Each of them for itself, by the check and by the client, with a canary on loopback."""
    assert len(REFUSED) >= 60
    guarded = client()
    let_through = []
    async with Server() as canary:
        loopback = [url.replace(":6379", f":{canary.port}") for url in REFUSED]
        for url in [*loopback, canary.url(), canary.url(host="localtest.test")]:
            for attempt in (guarded.check(url), guarded.send(EgressRequest("GET", url))):
                try:
                    await attempt
                except EgressFailed as failed:
                    if failed.code != "egress_refused":
                        let_through.append((url, failed.code))
                else:
                    let_through.append((url, "called"))
        assert (let_through, canary.connections) == ([], 0)
    await guarded.aclose()


@pytest.mark.parametrize("url", ALLOWED)
async def test_public_urls_pass_the_check(url: str) -> None:
    assert await client().check(url)


async def test_every_address_of_a_name_is_checked_even_when_the_first_one_is_public() -> None:
    with pytest.raises(EgressFailed, match="stands for an address of a private network"):
        await client().check("http://both.test/")


async def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    """First answer public, every later one loopback: the canary must not see a thing."""
    answers = iter([["93.184.216.34"]])

    async def rebind(host: str, port: int) -> Sequence[str]:
        return next(answers, ["127.0.0.1"])

    guarded = EgressClient(EgressPolicy(), EgressLimits(total_seconds=2), rebind)
    async with Server() as canary:
        url = canary.url(host="rebind.test")
        assert await guarded.check(url) == ["93.184.216.34"]
        for _ in range(3):
            with pytest.raises(EgressFailed) as failed:
                await guarded.send(EgressRequest("GET", url))
            assert failed.value.code == "egress_refused"
        assert canary.connections == 0
    await guarded.aclose()


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    asked = []

    async def look_up(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    guarded = EgressClient(EgressPolicy.of("pinned.test"), None, look_up)
    async with Server() as server:
        for _ in range(2):
            await guarded.send(EgressRequest("GET", server.url(host="pinned.test")))
        assert asked == ["pinned.test"]
        assert server.last.headers["host"] == f"pinned.test:{server.port}"
        assert server.connections == 1
    await guarded.aclose()


async def test_an_unknown_name_is_not_reachable() -> None:
    guarded = client()
    for attempt in (
        guarded.check("http://nowhere.test/"),
        guarded.send(EgressRequest("GET", "http://nowhere.test/")),
    ):
        with pytest.raises(EgressFailed) as failed:
            await attempt
        assert failed.value.code == "egress_broken"
    await guarded.aclose()


async def test_a_name_without_addresses_is_not_reachable() -> None:
    async def nothing(host: str, port: int) -> Sequence[str]:
        return []

    with pytest.raises(EgressFailed, match="cannot be reached"):
        await EgressClient(EgressPolicy(), None, nothing).check("http://empty.test/")


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        (["internal.test"], "http://internal.test:9000/"),
        (["INTERNAL.test."], "http://internal.test/"),
        (["internal.test:8080"], "http://internal.test:8080/"),
        (["10.0.0.0/8"], "http://internal.test/"),
        (["10.1.2.3"], "http://10.1.2.3:1234/"),
        (["10.1.2.3:1234"], "http://10.1.2.3:1234/"),
        (["[::1]:80"], "http://[::1]/"),
        (["::1"], "http://[::1]:99/"),
        (["private"], "http://127.0.0.1:5000/"),
        (["private"], "http://192.168.4.4/"),
        (["private"], "http://[fd12::1]/"),
        (["any"], "http://100.64.0.1/"),
        (["any"], "http://169.254.1.1/"),
        (["169.254.169.254"], "http://169.254.169.254/"),
        (["metadata.google.internal"], "http://metadata.google.internal/"),
    ],
)
async def test_what_the_operator_names_may_be_called(entries: list[str], url: str) -> None:
    assert await client(*entries).check(url)


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        (["internal.test:8080"], "http://internal.test/"),
        (["internal.test"], "http://private.test/"),
        (["test"], "http://internal.test/"),
        (["10.1.2.3:1234"], "http://10.1.2.3:80/"),
        (["10.1.2.0/24"], "http://10.1.3.1/"),
        (["private"], "http://169.254.169.254/"),
        (["private"], "http://169.254.1.1/"),
        (["private"], "http://[fd00:ec2::254]/"),
        (["private"], "http://100.64.0.1/"),
        (["private"], "http://0.0.0.0/"),
        (["private"], "http://2130706433/"),
        (["any"], "http://169.254.169.254/"),
        (["any"], "http://metadata.google.internal/"),
        (["none"], "http://127.0.0.1/"),
    ],
)
async def test_what_the_operator_does_not_name_stays_closed(entries: list[str], url: str) -> None:
    with pytest.raises(EgressFailed) as failed:
        await client(*entries).check(url)
    assert failed.value.code == "egress_refused"


async def test_only_listed_ports_are_open_when_there_is_a_list() -> None:
    guarded = client("internal.test:9000", ports=[443])

    assert await guarded.check("https://public.test/")
    assert await guarded.check("http://internal.test:9000/")
    for url in ("http://public.test/", "http://93.184.216.34/", "https://public.test:8443/"):
        with pytest.raises(EgressFailed, match="MACHINA_EGRESS_PORTS"):
            await guarded.check(url)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("10.0.0.1", "private"),
        ("169.254.1.1", "link-local"),
        ("100.64.0.1", "CGNAT"),
        ("224.0.0.1", "multicast"),
        ("::ffff:8.8.8.8", "IPv6 form"),
        ("64:ff9b::808:808", "IPv6 form"),
        ("240.0.0.1", "reserved"),
        ("169.254.169.254", "metadata"),
    ],
)
def test_an_address_that_is_not_public_says_what_it_is(address: str, kind: str) -> None:
    assert kind in str(why_not_public(ipaddress.ip_address(address)))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "93.184.216.34"])
def test_a_public_address_is_public(address: str) -> None:
    assert why_not_public(ipaddress.ip_address(address)) is None


async def test_looking_a_name_up_does_not_block_the_loop() -> None:
    guarded = EgressClient(EgressPolicy())
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    with pytest.raises(EgressFailed, match="loopback"):
        await guarded.check("http://localhost/")
    ticking.cancel()
    assert ticks > 1
