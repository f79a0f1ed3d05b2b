"""The worker's half on a real Redis and real Dramatiq threads."""

from __future__ import annotations

import os
import queue as stdlib_queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import dramatiq
import pytest
from dramatiq import Worker

from machina.ids import RunId
from machina.queue import keys
from machina.queue.broker import DoorbellBroker, always, make_broker
from machina.queue.consumer import HandOverRefused
from machina.queue.names import Queue, actor_name
from machina.queue.slots import Slots
from machina.worker.actors import OnMessage, register
from tests.services import RedisServer

PREFIX = "machina"
NAMESPACE = keys.namespace(PREFIX)
SOON = 5.0


def run_id(number: int) -> RunId:
    return RunId(f"{number:024x}")


class Inbox:
    """Where a worker's runs arrive, in order; each keeps its slot until the test releases it."""

    def __init__(self) -> None:
        self.arrived: stdlib_queue.Queue[RunId] = stdlib_queue.Queue()

    def __call__(self, run_id: RunId) -> None:
        self.arrived.put(run_id)

    def take(self, count: int) -> list[RunId]:
        return [self.arrived.get(timeout=SOON) for _ in range(count)]


@contextmanager
def working(
    url: str,
    slots: Slots,
    on_message: OnMessage,
    *,
    queues: Sequence[Queue] = tuple(Queue),
    may_fetch: Callable[[], bool] = always,
    threads: int = 2,
) -> Iterator[DoorbellBroker]:
    """A worker, stopped as the worker process stops it."""
    broker = make_broker(url, PREFIX, slots=slots, may_fetch=may_fetch)
    register(broker, on_message, queues)
    worker = Worker(broker, worker_threads=threads, worker_timeout=100)
    worker.start()
    try:
        yield broker
    finally:
        for consumer in worker.consumers.values():
            consumer.stop()
        broker.stop_fetching()
        worker.stop(timeout=3_000)
        broker.close()


@contextmanager
def sender(url: str) -> Iterator[Callable[[int, Queue], None]]:
    """Enqueues run ids by their number."""
    broker = make_broker(url, PREFIX, slots=Slots(1))

    def send(number: int, queue: Queue) -> None:
        broker.enqueue(message(queue, run_id(number)))

    yield send
    broker.close()


def message(queue: Queue, *args: object, actor: str | None = None) -> dramatiq.Message[None]:
    return dramatiq.Message(
        queue_name=queue.value,
        actor_name=actor or actor_name(queue),
        args=args,
        kwargs={},
        options={},
    )


def eventually(condition: Callable[[], object], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


def waiting(server: RedisServer, queue: Queue) -> int:
    with server.connect() as client:
        return int(client.llen(f"{NAMESPACE}:{queue}"))


def listeners(server: RedisServer) -> set[str]:
    """The connections of consumers that block on a bell."""
    with server.connect() as client:
        clients = client.client_list()
    return {c["id"] for c in clients if c["cmd"] == "bzpopmin" and "b" in c["flags"]}


def is_listening(server: RedisServer, consumers: int) -> bool:
    """Whether this many consumers block on a bell."""
    return len(listeners(server)) == consumers


def test_an_idle_worker_picks_up_at_the_bell_and_not_at_a_poll(redis_server: RedisServer) -> None:
    slots, inbox = Slots(10), Inbox()
    with (
        working(redis_server.url, slots, inbox),
        sender(redis_server.url) as send,
    ):
        took = []
        for number in range(5):
            eventually(lambda: is_listening(redis_server, 4))
            began = time.monotonic()
            send(number, Queue.STREAMING)
            assert inbox.take(1) == [run_id(number)]
            took.append(time.monotonic() - began)
    # A look by itself would take half a second on average; five in a row cannot be luck.
    assert max(took) < 0.3


def test_a_message_that_started_a_run_is_acknowledged_and_keeps_its_slot(
    redis_server: RedisServer,
) -> None:
    slots, inbox = Slots(10), Inbox()
    with working(redis_server.url, slots, inbox), sender(redis_server.url) as send:
        send(1, Queue.HIGH)
        inbox.take(1)
        with redis_server.connect() as client:
            eventually(lambda: client.hlen(keys.messages(NAMESPACE, Queue.HIGH)) == 0)
            eventually(lambda: slots.in_use == 1)


def test_urgent_queues_go_first_when_all_wait_and_slots_are_scarce(
    redis_server: RedisServer,
) -> None:
    slots, inbox = Slots(1), Inbox()
    with sender(redis_server.url) as send:
        for queue in reversed(Queue):
            for number in range(3):
                send(list(Queue).index(queue) * 3 + number, queue)
        order = []
        with working(redis_server.url, slots, inbox):
            for _ in range(12):
                order += inbox.take(1)
                assert slots.in_use == 1
                slots.release()
    assert order == [run_id(number) for number in range(12)]


def test_nothing_is_fetched_while_no_slot_is_free(redis_server: RedisServer) -> None:
    slots, inbox = Slots(2), Inbox()
    with working(redis_server.url, slots, inbox), sender(redis_server.url) as send:
        for number in range(10):
            send(number, Queue.NORMAL)
        inbox.take(2)
        assert slots.is_full
        with redis_server.connect() as client:
            before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
            eventually(lambda: client.hlen(keys.messages(NAMESPACE, Queue.NORMAL)) == 8)
            assert inbox.arrived.empty()
            assert waiting(redis_server, Queue.NORMAL) == 8
            slots.release()
            inbox.take(1)
            assert waiting(redis_server, Queue.NORMAL) == 7
            after = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert after - before < 30  # no loop that asks and asks


def test_slots_are_never_exceeded_when_many_messages_wait(redis_server: RedisServer) -> None:
    slots, most, done = Slots(5), 0, threading.Event()
    seen: list[RunId] = []

    def on_message(run_id: RunId) -> None:
        nonlocal most
        most = max(most, slots.in_use)
        seen.append(run_id)
        threading.Timer(0.002, slots.release).start()
        if len(seen) == 200:
            done.set()

    with sender(redis_server.url) as send:
        for number in range(200):
            send(number, list(Queue)[number % 4])
        with working(redis_server.url, slots, on_message):
            assert done.wait(SOON)
            eventually(lambda: slots.in_use == 0)
    assert most <= 5
    assert sorted(seen) == [run_id(number) for number in range(200)]


def test_another_worker_takes_over_when_the_first_is_full(redis_server: RedisServer) -> None:
    first, second = Inbox(), Inbox()
    with (
        working(redis_server.url, Slots(1), first),
        sender(redis_server.url) as send,
    ):
        send(1, Queue.STREAMING)
        first.take(1)
        of_first = listeners(redis_server)
        with working(redis_server.url, Slots(5), second):
            eventually(lambda: len(listeners(redis_server) - of_first) == 4)
            for number in (2, 3, 4):
                began = time.monotonic()
                send(number, Queue.STREAMING)
                assert second.take(1) == [run_id(number)]
                assert time.monotonic() - began < 0.3  # a bell, not a look by itself
    assert first.arrived.empty()


def test_two_workers_share_what_waits(redis_server: RedisServer) -> None:
    inboxes = [Inbox(), Inbox()]
    with sender(redis_server.url) as send:
        for number in range(20):
            send(number, Queue.NORMAL)
        with (
            working(redis_server.url, Slots(10), inboxes[0]),
            working(redis_server.url, Slots(10), inboxes[1]),
        ):
            shares = [inbox.take(10) for inbox in inboxes]
    assert sorted(shares[0] + shares[1]) == [run_id(number) for number in range(20)]


def test_messages_flow_again_when_redis_was_killed_and_came_back(own_redis: RedisServer) -> None:
    slots, inbox = Slots(10), Inbox()
    with working(own_redis.url, slots, inbox):
        eventually(lambda: is_listening(own_redis, 4))
        own_redis.restart()
        began = time.monotonic()
        with sender(own_redis.url) as send:
            send(1, Queue.STREAMING)
            assert inbox.take(1) == [run_id(1)]
        # Dramatiq by itself waits three seconds before it connects again.
        assert time.monotonic() - began < 1.5
    assert slots.in_use == 1


def test_a_message_survives_when_redis_is_killed_between_hand_over_and_acknowledgement(
    own_redis: RedisServer,
) -> None:
    slots, killed = Slots(10), threading.Event()
    inbox = Inbox()

    def on_message(run_id: RunId) -> None:
        own_redis.kill()
        inbox(run_id)
        killed.set()

    with sender(own_redis.url) as send, working(own_redis.url, slots, on_message):
        send(1, Queue.HIGH)
        assert killed.wait(SOON)
        own_redis.start()
        with own_redis.connect() as client:
            # The acknowledgement is made up for; nothing is left for a second delivery.
            eventually(lambda: client.hlen(keys.messages(NAMESPACE, Queue.HIGH)) == 0)
    assert inbox.take(1) == [run_id(1)]
    assert slots.in_use == 1


def test_a_message_is_found_when_the_answer_to_its_fetch_was_lost(
    own_redis: RedisServer,
) -> None:
    slots, inbox = Slots(10), Inbox()
    with working(own_redis.url, slots, inbox) as broker, own_redis.connect() as client:
        eventually(lambda: is_listening(own_redis, 4))
        # What a fetch leaves behind whose answer never arrived:
        with sender(own_redis.url) as send:
            client.client_pause(0)
            lost = "lost-message"
            body = message(Queue.NORMAL, run_id(7)).copy(options={"redis_message_id": lost})
            client.hset(keys.messages(NAMESPACE, Queue.NORMAL), lost, body.encode())
            client.sadd(keys.unacknowledged(NAMESPACE, Queue.NORMAL, broker.broker_id), lost)
            for connection in client.client_list():
                if connection["cmd"] == "bzpopmin":
                    client.client_kill_filter(_id=connection["id"])
            assert inbox.take(1) == [run_id(7)]
            send(8, Queue.NORMAL)
            assert inbox.take(1) == [run_id(8)]
    assert slots.in_use == 2


def test_what_a_killed_worker_had_fetched_comes_back(redis_server: RedisServer) -> None:
    inbox = Inbox()
    with redis_server.connect() as client, sender(redis_server.url) as send:
        send(1, Queue.NORMAL)
        [fetched] = client.lrange(f"{NAMESPACE}:{Queue.NORMAL}", 0, -1)
        client.delete(f"{NAMESPACE}:{Queue.NORMAL}")
        client.sadd(keys.unacknowledged(NAMESPACE, Queue.NORMAL, "killed"), fetched)
        client.zadd(keys.heartbeats(NAMESPACE), {"killed": int(time.time() * 1000) - 6_000})
        with working(redis_server.url, Slots(3), inbox):
            assert inbox.take(1) == [run_id(1)]
        assert client.zscore(keys.heartbeats(NAMESPACE), "killed") is None


def test_messages_go_back_to_the_queue_when_the_worker_stops(redis_server: RedisServer) -> None:
    slots, entered, let_go = Slots(20), threading.Event(), threading.Event()

    def refuse(run_id: RunId) -> None:
        entered.set()
        assert let_go.wait(SOON)
        raise HandOverRefused

    with sender(redis_server.url) as send:
        for number in range(10):
            send(number, Queue.HIGH)
        with working(redis_server.url, slots, refuse, threads=1):
            assert entered.wait(SOON)
            eventually(lambda: waiting(redis_server, Queue.HIGH) < 10)
            threading.Timer(0.05, let_go.set).start()
    assert waiting(redis_server, Queue.HIGH) == 10
    assert slots.in_use == 0
    inbox = Inbox()
    with working(redis_server.url, Slots(20), inbox):
        assert sorted(inbox.take(10)) == [run_id(number) for number in range(10)]


def test_a_worker_stops_at_once_when_it_waits_for_bells(redis_server: RedisServer) -> None:
    with working(redis_server.url, Slots(1), Inbox(), threads=1) as broker:
        eventually(lambda: is_listening(redis_server, 4))
        began = time.monotonic()
        broker.stop_fetching()
        eventually(lambda: is_listening(redis_server, 0), seconds=0.5)
    assert time.monotonic() - began < 0.9
    with redis_server.connect() as client:
        assert client.zcard(keys.heartbeats(NAMESPACE)) == 0


def test_nothing_is_fetched_while_the_worker_may_not(redis_server: RedisServer) -> None:
    allowed, inbox = threading.Event(), Inbox()
    with sender(redis_server.url) as send:
        send(1, Queue.STREAMING)
        with working(redis_server.url, Slots(1), inbox, may_fetch=allowed.is_set):
            with pytest.raises(stdlib_queue.Empty):
                inbox.arrived.get(timeout=0.3)
            assert waiting(redis_server, Queue.STREAMING) == 1
            allowed.set()
            assert inbox.take(1) == [run_id(1)]


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"\xff\xfe",
        b"{}",
        b'{"queue_name":"normal_priority","actor_name":"x","args":[],"kwargs":{},"options":[]}',
        message(Queue.LOW, run_id(1)).copy(options={"redis_message_id": "bad"}).encode(),
    ],
    ids=["text", "bytes", "empty", "shape", "queue"],
)
def test_an_unreadable_message_is_set_aside_and_the_next_is_served(
    redis_server: RedisServer, data: bytes
) -> None:
    slots, inbox = Slots(3), Inbox()
    with redis_server.connect() as client, sender(redis_server.url) as send:
        client.hset(keys.messages(NAMESPACE, Queue.NORMAL), "bad", data)
        client.rpush(f"{NAMESPACE}:{Queue.NORMAL}", "bad")
        send(2, Queue.NORMAL)
        with working(redis_server.url, slots, inbox) as broker:
            assert inbox.take(1) == [run_id(2)]
            acks = keys.unacknowledged(NAMESPACE, Queue.NORMAL, broker.broker_id)
            eventually(lambda: client.scard(acks) == 0)
            eventually(lambda: slots.in_use == 1)
        assert client.hget(f"{NAMESPACE}:{Queue.NORMAL}.XQ.msgs", "bad") == data


@pytest.mark.parametrize(
    "bad",
    [
        message(Queue.NORMAL, "not-an-id"),
        message(Queue.NORMAL, run_id(1), run_id(2)),
        message(Queue.NORMAL),
        message(Queue.NORMAL, 17),
        message(Queue.NORMAL, run_id(1), actor="somebody_elses"),
    ],
    ids=["id", "two", "none", "number", "actor"],
)
def test_a_message_that_names_no_run_is_dropped_and_its_slot_comes_back(
    redis_server: RedisServer, bad: dramatiq.Message[None]
) -> None:
    slots, inbox = Slots(1), Inbox()
    broker = make_broker(redis_server.url, PREFIX, slots=Slots(1))
    broker.enqueue(bad)
    broker.close()
    with working(redis_server.url, slots, inbox), sender(redis_server.url) as send:
        send(3, Queue.NORMAL)
        assert inbox.take(1) == [run_id(3)]
        with redis_server.connect() as client:
            eventually(lambda: client.hlen(keys.messages(NAMESPACE, Queue.NORMAL)) == 0)
    assert slots.in_use == 1


def test_the_slot_comes_back_when_the_hand_over_fails(redis_server: RedisServer) -> None:
    slots, failed = Slots(1), threading.Event()

    def break_down(run_id: RunId) -> None:
        failed.set()
        raise RuntimeError("a defect")

    with working(redis_server.url, slots, break_down), sender(redis_server.url) as send:
        send(1, Queue.LOW)
        assert failed.wait(SOON)
        eventually(lambda: slots.in_use == 0 and waiting(redis_server, Queue.LOW) == 0)


def test_a_frozen_redis_only_delays(own_redis: RedisServer) -> None:
    slots, inbox = Slots(10), Inbox()
    with working(own_redis.url, slots, inbox), sender(own_redis.url) as send:
        eventually(lambda: is_listening(own_redis, 4))
        os.kill(own_redis.pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (own_redis.pid, signal.SIGCONT)).start()
        send(1, Queue.HIGH)
        assert inbox.take(1) == [run_id(1)]


def test_the_broker_has_no_middleware_and_no_delay_queues(redis_server: RedisServer) -> None:
    broker = make_broker(redis_server.url, PREFIX, slots=Slots(1))
    register(broker, Inbox())
    assert broker.middleware == []
    assert broker.get_declared_delay_queues() == set()
    assert broker.get_declared_queues() == {queue.value for queue in Queue}
    assert {name: actor.priority for name, actor in broker.actors.items()} == {
        "execute_run_streaming_priority": 0,
        "execute_run_high_priority": 1,
        "execute_run_normal_priority": 2,
        "execute_run_low_priority": 3,
    }
    with pytest.raises(ValueError, match="no delayed messages"):
        broker.enqueue(message(Queue.LOW, run_id(1)), delay=1_000)
    broker.close()
