"""The sender's half: what it writes is what Dramatiq writes, and it knows what it does not know."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from redis.asyncio import Redis

from machina.errors import QueueAmbiguous, QueueDown
from machina.ids import RunId
from machina.queue import keys
from machina.queue.broker import make_broker
from machina.queue.dispatch import load_dispatch_script
from machina.queue.enqueue import Enqueuer, encode_message, make_queue_client
from machina.queue.names import Queue, actor_name
from machina.queue.slots import Slots
from tests.services import RedisServer

PREFIX = "machina"
RUN = RunId("0123456789abcdef01234567")


@contextlib.asynccontextmanager
async def enqueuer_on(url: str, prefix: str) -> AsyncIterator[Enqueuer]:
    client = make_queue_client(url)
    try:
        yield Enqueuer(client, prefix)
    finally:
        await client.aclose()


@contextlib.asynccontextmanager
async def server(
    path: Path, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[str]:
    """Something on a unix socket that behaves as Redis might on a bad day."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()

    listening = await asyncio.start_unix_server(serve, path / "s")
    try:
        yield f"unix://{path / 's'}"
    finally:
        listening.close()


async def answer_until_script(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: bytes | None
) -> None:
    """Answers the greeting of a client as Redis does, and the script with `reply`."""
    while True:
        words = [await _word(reader) for _ in range(int((await reader.readline())[1:]))]
        if words[0] in (b"EVALSHA", b"EVAL"):
            if reply is not None:
                writer.write(reply)
            return
        hello = b"%1\r\n$5\r\nproto\r\n:3\r\n"
        writer.write(hello if words[0] == b"HELLO" else b"+OK\r\n")


async def _word(reader: asyncio.StreamReader) -> bytes:
    length = int((await reader.readline())[1:])
    return (await reader.readexactly(length + 2))[:-2]


async def test_the_message_is_dramatiqs_to_the_byte() -> None:
    for queue in Queue:
        ours = encode_message(RUN, queue, "redis-id", "message-id", 1_700_000_000_123)
        theirs: dramatiq.Message[None] = dramatiq.Message(
            queue_name=queue.value,
            actor_name=actor_name(queue),
            args=(str(RUN),),
            kwargs={},
            options={"redis_message_id": "redis-id"},
            message_id="message-id",
            message_timestamp=1_700_000_000_123,
        )
        assert ours == theirs.encode()
        assert dramatiq.Message.decode(ours) == theirs


async def test_redis_holds_the_same_when_sender_or_broker_enqueued(
    redis_server: RedisServer,
) -> None:
    broker = make_broker(redis_server.url, "b", slots=Slots(1))
    message: dramatiq.Message[None] = dramatiq.Message(
        queue_name=Queue.HIGH.value,
        actor_name=actor_name(Queue.HIGH),
        args=(RUN,),
        kwargs={},
        options={},
    )
    async with enqueuer_on(redis_server.url, "e") as enqueuer:
        await enqueuer.enqueue_run(RUN, Queue.HIGH)
    await asyncio.to_thread(broker.enqueue, message)
    with redis_server.connect() as client:
        assert _shape(client, "e") == _shape(client, "b")
    await asyncio.to_thread(broker.close)


def _shape(client: Any, prefix: str) -> list[object]:
    """What lies in Redis, without what differs from message to message."""
    namespace = keys.namespace(prefix)
    names = sorted(key.decode().removeprefix(namespace) for key in client.keys(f"{prefix}:*"))
    ids = client.lrange(f"{namespace}:{Queue.HIGH}", 0, -1)
    messages = client.hgetall(keys.messages(namespace, Queue.HIGH))
    assert list(messages) == ids
    [message] = [dramatiq.Message.decode(data) for data in messages.values()]
    assert message.options == {"redis_message_id": ids[0].decode()}
    bell = client.zrange(keys.bell(namespace, Queue.HIGH), 0, -1, withscores=True)
    return [names, bell, message.actor_name, message.args, message.kwargs]


async def test_the_bell_stays_one_member_when_a_thousand_runs_wait(
    redis_server: RedisServer,
) -> None:
    async with enqueuer_on(redis_server.url, PREFIX) as enqueuer:
        await asyncio.gather(*(enqueuer.enqueue_run(RUN, Queue.LOW) for _ in range(1_000)))
    client = redis_server.connect()
    namespace = keys.namespace(PREFIX)
    assert client.llen(f"{namespace}:{Queue.LOW}") == 1_000
    assert client.zcard(keys.bell(namespace, Queue.LOW)) == 1
    client.close()


async def test_a_run_is_enqueued_when_redis_does_not_know_the_script(
    redis_server: RedisServer,
) -> None:
    client = redis_server.connect()
    async with enqueuer_on(redis_server.url, PREFIX) as enqueuer:
        client.script_flush()
        await enqueuer.enqueue_run(RUN, Queue.NORMAL)
        await enqueuer.enqueue_run(RUN, Queue.NORMAL)
    assert client.llen(f"{keys.namespace(PREFIX)}:{Queue.NORMAL}") == 2
    client.close()


def test_the_script_is_the_one_dramatiq_uses() -> None:
    script = load_dispatch_script()
    stock = make_broker("unix:///nowhere", "x", slots=Slots(1)).scripts["dispatch"]
    assert (script.text, script.sha) == (stock.script, stock.sha)


async def test_a_sender_never_counts_as_a_dead_worker(redis_server: RedisServer) -> None:
    async with enqueuer_on(redis_server.url, PREFIX) as enqueuer:
        await enqueuer.enqueue_run(RUN, Queue.HIGH)
    client = redis_server.connect()
    far = 4_000_000_000_000
    assert client.zcount(keys.heartbeats(keys.namespace(PREFIX)), 0, far) == 0
    client.close()


async def test_nothing_was_queued_when_nobody_listens(tmp_path: Path) -> None:
    async with enqueuer_on(f"unix://{tmp_path}/nobody", "p") as enqueuer:
        with pytest.raises(QueueDown) as caught:
            await enqueuer.enqueue_run(RUN, Queue.HIGH)
    assert not isinstance(caught.value, QueueAmbiguous)
    assert caught.value.code == "queue_unavailable"


async def test_nothing_was_queued_when_the_name_does_not_resolve() -> None:
    async with enqueuer_on("redis://no.such.host.invalid:6379/0", "p") as enqueuer:
        with pytest.raises(QueueDown) as caught:
            await enqueuer.enqueue_run(RUN, Queue.HIGH)
    assert not isinstance(caught.value, QueueAmbiguous)


@pytest.mark.parametrize(
    "reply",
    [
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-MISCONF Redis is configured to save RDB snapshots\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-NOAUTH Authentication required.\r\n",
    ],
)
async def test_nothing_was_queued_when_redis_refuses(tmp_path: Path, reply: bytes) -> None:
    async with (
        server(tmp_path, lambda r, w: answer_until_script(r, w, reply)) as url,
        enqueuer_on(url, "p") as enqueuer,
    ):
        with pytest.raises(QueueDown) as caught:
            await enqueuer.enqueue_run(RUN, Queue.HIGH)
    assert not isinstance(caught.value, QueueAmbiguous)


async def test_it_may_have_been_queued_when_the_connection_breaks_before_the_answer(
    tmp_path: Path,
) -> None:
    async with (
        server(tmp_path, lambda r, w: answer_until_script(r, w, None)) as url,
        enqueuer_on(url, "p") as enqueuer,
    ):
        with pytest.raises(QueueAmbiguous):
            await enqueuer.enqueue_run(RUN, Queue.HIGH)


async def test_it_may_have_been_queued_when_the_answer_takes_too_long(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_until_script(reader, writer, None)
        await release.wait()

    async with server(tmp_path, stall) as url:
        client = Redis.from_url(url, socket_timeout=0.1, protocol=2, driver_info=None)
        with pytest.raises(QueueAmbiguous):
            await Enqueuer(client, "p").enqueue_run(RUN, Queue.HIGH)
        release.set()
        await client.aclose()


async def test_the_run_is_queued_when_only_the_bell_fails(tmp_path: Path) -> None:
    async def no_bell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_until_script(reader, writer, b"_\r\n")

    async with server(tmp_path, no_bell) as url, enqueuer_on(url, "p") as enqueuer:
        await enqueuer.enqueue_run(RUN, Queue.HIGH)


async def test_sending_works_again_when_redis_was_killed_and_came_back(
    own_redis: RedisServer,
) -> None:
    async with enqueuer_on(own_redis.url, PREFIX) as enqueuer:
        await enqueuer.enqueue_run(RUN, Queue.HIGH)
        await asyncio.to_thread(own_redis.kill)
        with pytest.raises(QueueDown) as caught:
            await enqueuer.enqueue_run(RUN, Queue.HIGH)
        assert not isinstance(caught.value, QueueAmbiguous)
        await asyncio.to_thread(own_redis.start)
        await enqueuer.enqueue_run(RUN, Queue.HIGH)
    client = own_redis.connect()
    assert client.llen(f"{keys.namespace(PREFIX)}:{Queue.HIGH}") == 2
    client.close()


async def test_the_connection_is_not_reused_when_a_caller_gave_up_waiting(
    redis_server: RedisServer,
) -> None:
    async with enqueuer_on(redis_server.url, PREFIX) as enqueuer:
        await enqueuer.enqueue_run(RUN, Queue.HIGH)
        given_up = [asyncio.create_task(enqueuer.enqueue_run(RUN, Queue.HIGH)) for _ in range(8)]
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        for _ in range(9):  # each finds a connection that answers its own question
            await enqueuer.enqueue_run(RUN, Queue.LOW)
    client = redis_server.connect()
    assert client.llen(f"{keys.namespace(PREFIX)}:{Queue.LOW}") == 9
    client.close()
