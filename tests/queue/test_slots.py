"""The places of a worker: counted exactly, given out in the order of the queues."""

from __future__ import annotations

import threading

import pytest

from machina.queue.slots import Slots


def test_no_more_slots_are_given_out_than_there_are() -> None:
    slots = Slots(3)
    assert slots.reserve(2) == 2
    assert slots.reserve(5) == 1
    assert not slots.try_reserve()
    assert slots.is_full
    slots.release(3)
    assert slots.in_use == 0


def test_releasing_a_slot_twice_is_refused_when_nothing_is_reserved() -> None:
    slots = Slots(1)
    assert slots.try_reserve()
    slots.release()
    with pytest.raises(ValueError, match="released twice"):
        slots.release()


def test_a_worker_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Slots(0)


def test_a_less_urgent_queue_gets_nothing_while_a_more_urgent_one_asks() -> None:
    slots = Slots(2)
    slots.ask(0)
    assert not slots.try_reserve(rank=1)
    assert slots.try_reserve(rank=0)
    slots.rest(0)
    assert slots.try_reserve(rank=1)


def test_the_most_urgent_waiter_wins_when_a_slot_becomes_free() -> None:
    slots = Slots(1)
    slots.try_reserve()
    winners: list[int] = []
    asking = threading.Barrier(5)

    def wait(rank: int) -> None:
        slots.ask(rank)
        asking.wait()
        while not slots.try_reserve(rank):
            slots.wait_free(5, rank)
        winners.append(rank)
        slots.rest(rank)
        slots.release()

    threads = [threading.Thread(target=wait, args=(rank,)) for rank in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
    asking.wait()
    slots.release()
    for thread in threads:
        thread.join()
    assert winners == [0, 1, 2, 3]


def test_waiting_ends_when_a_slot_is_released() -> None:
    slots = Slots(1)
    slots.try_reserve()
    threading.Timer(0.05, slots.release).start()
    assert slots.wait_free(5)


def test_waiting_ends_without_a_slot_when_the_time_is_over() -> None:
    slots = Slots(1)
    slots.try_reserve()
    assert not slots.wait_free(0.01)


def test_waiting_ends_when_it_is_interrupted_for_a_reason() -> None:
    slots, stopping = Slots(1), threading.Event()
    slots.try_reserve()

    def stop() -> None:
        slots.interrupt()
        stopping.set()
        slots.interrupt()

    threading.Timer(0.05, stop).start()
    assert not slots.wait_free(5, unless=stopping.is_set)
    assert not slots.wait_free(5, unless=stopping.is_set)


def test_nothing_is_given_out_any_more_when_closed() -> None:
    slots = Slots(2)
    slots.try_reserve()
    slots.close()
    slots.release()
    assert not slots.try_reserve()
    assert slots.in_use == 0


def test_the_count_holds_when_many_threads_reserve_and_release() -> None:
    slots = Slots(7)
    most = 0

    def churn() -> None:
        nonlocal most
        for _ in range(500):
            got = slots.reserve(3)
            most = max(most, slots.in_use)
            slots.release(got)

    threads = [threading.Thread(target=churn) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slots.in_use == 0
    assert 0 < most <= 7
