"""One task per run, one slot per task."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from machina.ids import RunId
from machina.queue.slots import Slots
from machina.worker.in_flight import InFlight

A, B = RunId("a" * 24), RunId("b" * 24)


class Work:
    """Executes by waiting until the test says so."""

    def __init__(self) -> None:
        self.began: list[RunId] = []
        self.gates: list[asyncio.Event] = []

    async def __call__(self, run_id: RunId) -> None:
        gate = asyncio.Event()
        self.began.append(run_id)
        self.gates.append(gate)
        await gate.wait()


def make(work: Work) -> tuple[InFlight, Slots]:
    slots = Slots(10)
    return InFlight(work, slots), slots


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_slot_comes_back_when_the_run_ends() -> None:
    work = Work()
    in_flight, slots = make(work)
    for run_id in (A, B):
        assert slots.try_reserve()
        in_flight.accept(run_id)
    await turn()
    assert (work.began, len(in_flight), slots.in_use) == ([A, B], 2, 2)
    work.gates[0].set()
    await turn()
    assert (len(in_flight), slots.in_use) == (1, 1)
    work.gates[1].set()
    assert await in_flight.wait_empty(5) == 0
    assert slots.in_use == 0


async def test_a_second_wake_up_waits_for_the_first_to_end_and_a_third_is_dropped() -> None:
    work = Work()
    in_flight, slots = make(work)
    slots.reserve(3)
    for _ in range(3):
        in_flight.accept(A)
    await turn()
    assert (work.began, slots.in_use) == ([A], 2)
    work.gates[0].set()
    await turn()
    assert (work.began, slots.in_use) == ([A, A], 1)
    work.gates[1].set()
    assert await in_flight.wait_empty(5) == 0
    assert slots.in_use == 0


async def test_a_waiting_wake_up_starts_nothing_when_the_process_stops() -> None:
    work = Work()
    in_flight, slots = make(work)
    slots.reserve(2)
    in_flight.accept(A)
    in_flight.accept(A)
    in_flight.close()
    await turn()
    work.gates[0].set()
    assert await in_flight.wait_empty(5) == 0
    assert (work.began, slots.in_use) == ([A], 0)


async def test_a_defect_in_one_run_costs_only_that_run() -> None:
    slots = Slots(1)

    async def break_down(run_id: RunId) -> None:
        raise RuntimeError("a defect")

    in_flight = InFlight(break_down, slots)
    slots.try_reserve()
    with capture_logs() as logs:
        in_flight.accept(A)
        assert await in_flight.wait_empty(5) == 0
    assert [(line["event"], line["run_id"]) for line in logs] == [("execution.failed", A)]
    assert slots.in_use == 0


async def test_what_does_not_end_in_time_is_counted_and_can_be_cancelled() -> None:
    reasons: list[object] = []
    slots = Slots(1)

    async def linger(run_id: RunId) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            reasons.extend(cancelled.args)
            raise

    in_flight = InFlight(linger, slots)
    slots.try_reserve()
    in_flight.accept(A)
    assert await in_flight.wait_empty(0.01) == 1
    await in_flight.cancel()
    assert (reasons, slots.in_use, len(in_flight)) == (["drain"], 0, 0)


@pytest.mark.parametrize("action", ["wait", "cancel"])
async def test_nothing_happens_when_nothing_is_in_flight(action: str) -> None:
    in_flight, _ = make(Work())
    if action == "wait":
        assert await in_flight.wait_empty(5) == 0
    else:
        await in_flight.cancel()
    assert len(in_flight) == 0
