"""The attempts in flight in this process: started by wake-ups, interrupted by signals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from machina.errors import StoreDown
from machina.ids import RunId
from machina.runs.attempts import Attempts
from machina.worker.execute import AreFilesHere, Execution, MakeContext
from machina.worker.interrupts import Interrupt

log = structlog.get_logger(__name__)


class Executions:
    """A table of running attempts by run id. Lives on the worker's event loop."""

    def __init__(
        self,
        attempts: Attempts,
        make_context: MakeContext,
        *,
        holder: Callable[[], str],
        max_attempts: int,
        are_files_here: AreFilesHere,
    ) -> None:
        self._attempts = attempts
        self._make_context = make_context
        self._holder = holder
        self._max_attempts = max_attempts
        self._are_files_here = are_files_here
        self._running: dict[RunId, Execution] = {}

    async def execute(self, run_id: RunId) -> None:
        """Sees one run through; a second wake-up for a run in flight here does nothing."""
        if run_id in self._running:
            return
        execution = self._running[run_id] = Execution(
            run_id,
            self._attempts,
            self._make_context,
            max_attempts=self._max_attempts,
            are_files_here=self._are_files_here,
        )
        try:
            await execution.run(self._holder())
        except StoreDown as down:  # before the claim: the reaper wakes the run again
            log.warning("run.not_claimed", run_id=run_id, error=down.message)
        finally:
            del self._running[run_id]

    def is_running(self, run_id: RunId) -> bool:
        """Whether an attempt of this run is in flight here."""
        return run_id in self._running

    def cancel(self, run_id: RunId) -> None:
        """Cancels a run if it is in flight here."""
        if run_id in self._running:
            self._running[run_id].interrupt(Interrupt.CANCEL)

    def interrupt_all(self, reason: Interrupt) -> None:
        """Stops every attempt for one reason: a drain, or a lease that was lost."""
        for execution in list(self._running.values()):
            execution.interrupt(reason)

    async def watch_cancels(self) -> None:
        """Looks for cancel requests whose signal was lost, once a second."""
        while True:
            await asyncio.sleep(1.0)
            if not self._running:
                continue
            try:
                for run_id in await self._attempts.records.cancelled_of(self._holder()):
                    self.cancel(run_id)
            except StoreDown as down:
                log.warning("cancel.watch_store_down", error=down.message)
