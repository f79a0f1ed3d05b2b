"""Cancel signals between processes."""

from __future__ import annotations

import asyncio

from machina.eventlog.clients import make_log_client
from machina.eventlog.keys import LogKeys, make_log_keys
from machina.eventlog.signals import CancelListener, ring_cancel
from machina.ids import RunId
from tests.proxy import open_proxy
from tests.running import eventually, running
from tests.services import RedisServer, off_loop

KEYS = make_log_keys("test")
RUN = RunId("65f0000000000000000000a1")
OTHER = RunId("65f0000000000000000000b2")


async def test_the_signal_to_cancel_is_heard_after_a_restart(own_redis: RedisServer) -> None:
    heard: list[RunId] = []
    connected: list[None] = []
    commands = make_log_client(own_redis.url)
    listener = CancelListener(
        commands, KEYS, heard.append, on_connected=lambda: connected.append(None)
    )
    try:
        async with running(listener.run):
            await eventually(lambda: len(connected) == 1)
            await ring_cancel(commands, KEYS, RUN)
            await eventually(lambda: heard == [RUN])
            await commands.publish(KEYS.signals, b"\xff nonsense")
            await commands.publish(KEYS.signals, b"cancel:nonsense")
            await ring_cancel(commands, LogKeys("another deployment"), OTHER)
            await off_loop(own_redis.restart)
            await eventually(lambda: len(connected) == 2)
            await ring_cancel(commands, KEYS, OTHER)
            await eventually(lambda: heard == [RUN, OTHER])
    finally:
        await commands.aclose()


async def test_a_listener_connects_anew_when_its_connection_died_silently(
    own_redis: RedisServer,
) -> None:
    heard: list[RunId] = []
    connected: list[None] = []
    async with open_proxy(str(own_redis.socket)) as proxy:
        commands = make_log_client(own_redis.url)
        through_proxy = make_log_client(f"{proxy.url}?socket_connect_timeout=0.1")
        listener = CancelListener(
            through_proxy,
            KEYS,
            heard.append,
            on_connected=lambda: connected.append(None),
            quiet_seconds=0.05,
        )
        async with running(listener.run):
            await eventually(lambda: len(connected) == 1)
            await asyncio.sleep(0.2)
            assert len(connected) == 1, "silence alone is no reason: the server answers pings"
            proxy.freeze()
            await eventually(lambda: proxy.connections > 1)
            proxy.thaw()
            await eventually(lambda: len(connected) > 1)
            await ring_cancel(commands, KEYS, RUN)
            await eventually(lambda: heard == [RUN])
        for client in (commands, through_proxy):
            await client.aclose()
