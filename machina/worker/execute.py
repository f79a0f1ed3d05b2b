"""One attempt from claim to terminal event.

The engine runs in a task of its own. Whatever must stop it (a cancel, a clock, a drain, a log
that refuses this attempt, a lost lease) interrupts that task with a reason; `interrupts.py` says
how each reason ends the attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, TypeVar

import structlog

from machina.engine import RunContext, RunResult
from machina.errors import (
    DeadlineExceeded,
    Fenced,
    InternalError,
    RunError,
    StorageFull,
    StoreDown,
)
from machina.eventlog.answers import Answer, AppendRefused
from machina.eventlog.writer import AttemptLog
from machina.ids import RunId
from machina.observability.redaction import watch
from machina.runs.attempts import Attempts, cancelled
from machina.runs.closing import failure, first_event
from machina.runs.reaper import exhausted
from machina.runs.run import Outcome, Run, RunStatus
from machina.runs.viewing import waited_too_long
from machina.worker.interrupts import BY_ANSWER, SPENT, Interrupt
from machina.worker.kinds import run_kind

log = structlog.get_logger(__name__)
T = TypeVar("T")

RETRY_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0)

MakeContext = Callable[[Run, AttemptLog], RunContext]
"""What the engine works in: built by the worker for each attempt."""
AreFilesHere = Callable[[RunId], Awaitable[bool]]
"""Whether what the scripts of a run wrote can be read by a new attempt in this process."""


class Execution:
    """One attempt in flight. `interrupt` may be called at any time, also before the claim."""

    def __init__(
        self,
        run_id: RunId,
        attempts: Attempts,
        make_context: MakeContext,
        *,
        max_attempts: int,
        are_files_here: AreFilesHere,
    ) -> None:
        self.run_id = run_id
        self._attempts = attempts
        self._make_context = make_context
        self._max_attempts = max_attempts
        self._are_files_here = are_files_here
        self._reason: Interrupt | None = None
        self._engine: asyncio.Task[RunResult] | None = None

    def interrupt(self, reason: Interrupt) -> None:
        """Stops the engine. The first reason stands, but a lost attempt overrides every other."""
        if self._reason is None or reason is Interrupt.FENCED:
            self._reason = reason
        if self._engine is not None:
            self._engine.cancel()

    async def run(self, holder: str) -> None:
        """Claims the run and sees it through; returns at once when there is nothing to do."""
        run = await self._claim(holder)
        if run is None:
            return
        structlog.contextvars.bind_contextvars(run_id=run.id, attempt=run.attempt)
        log.info("attempt.claimed", queue=str(run.queue), target=run.target_name)
        self._measure_wait(run)
        attempt_log = self._attempts.open_log(run, on_refused=self._refused)
        try:
            outcome = await self._outcome(run, attempt_log)
            if outcome is None:
                await self._leave(run)
            else:
                await self._finish(run, outcome, attempt_log)
        except AppendRefused as refused:
            self._reason = BY_ANSWER[refused.answer]
            await self._leave(run)
        finally:
            attempt_log.close()

    async def _claim(self, holder: str) -> Run | None:
        """Claims the run; knows its own claim again when the store's answer to it was lost."""
        try:
            return await self._attempts.claim(self.run_id, holder)
        except StoreDown as down:
            log.warning("attempt.claim_uncertain", run_id=self.run_id, error=down.message)
        run = await self._persist(lambda: self._attempts.records.get(self.run_id))
        if run is None or run.is_final:
            return None
        if run.status is RunStatus.RUNNING:
            return run if run.worker == holder else None
        return await self._claim(holder)

    async def _outcome(self, run: Run, attempt_log: AttemptLog) -> Outcome | None:
        """How the run ends; None when the attempt must be left to another."""
        await self._check_files(run)
        await attempt_log.append(first_event(run))
        return self._settled(run, await self._attempts.clock()) or await self._execute(
            run, attempt_log
        )

    async def _check_files(self, run: Run) -> None:
        """Lets a run start over when the files that its checkpoint builds on are not here."""
        kept = run.checkpoint
        if kept is not None and kept.has_files and not await self._are_files_here(run.id):
            log.warning("attempt.files_gone", workflow_index=kept.workflow_index)
            run.checkpoint = None
            run.tasks.clear()

    def _settled(self, run: Run, now: datetime) -> Outcome | None:
        """How the run ends without being executed, if that is already clear."""
        if self._reason is Interrupt.CANCEL or run.cancel_requested:
            return cancelled(_standing(run))
        if run.attempts_spent >= self._max_attempts:
            return exhausted(run, run.attempts_spent)
        if run.deadline is not None and now >= run.deadline:
            return timed_out(run, _standing(run))
        if run.attempt == 1 and now >= run.queue_deadline:
            return waited_too_long(run, now)
        return None

    async def _execute(self, run: Run, attempt_log: AttemptLog) -> Outcome | None:
        context = self._make_context(run, attempt_log)
        watch(context.redactor)
        left = (run.deadline - await self._attempts.clock()).total_seconds() if run.deadline else 0
        clock = asyncio.get_running_loop().call_later(
            max(left, 0.0), self.interrupt, Interrupt.TIMEOUT
        )
        self._engine = asyncio.create_task(self._run_engine(run, context))
        if self._reason is not None:
            self._engine.cancel()
        try:
            await asyncio.wait([self._engine])
        except asyncio.CancelledError:  # the process is being torn down around us
            self.interrupt(Interrupt.DRAIN)
            _forget_cancellation()
            await asyncio.wait([self._engine])
        finally:
            clock.cancel()
            run.tokens = dict(context.tokens)
        return self._conclude(run, context, self._engine)

    def _conclude(
        self, run: Run, context: RunContext, engine: asyncio.Task[RunResult]
    ) -> Outcome | None:
        if engine.cancelled():
            return self._interrupted(run, context.text)
        error = engine.exception()
        if isinstance(error, AppendRefused):
            self._reason = BY_ANSWER[error.answer]
            return self._interrupted(run, context.text)
        if isinstance(error, Fenced):
            self._reason = Interrupt.FENCED
        elif isinstance(error, StoreDown):
            self._reason = self._reason or Interrupt.STORE_LOST
        elif error is not None:
            raise error
        elif self._reason is not Interrupt.FENCED:
            return outcome_of(engine.result())
        return None

    def _interrupted(self, run: Run, text: str) -> Outcome | None:
        match self._reason:
            case Interrupt.CANCEL:
                return cancelled(text)
            case Interrupt.TIMEOUT:
                return timed_out(run, text)
            case Interrupt.LOG_FULL:
                return failure(
                    StorageFull(
                        "The Redis of the event log has no room left; give it memory or disk, and "
                        "start the run again."
                    ),
                    content=text,
                )
            case _:
                return None

    async def _run_engine(self, run: Run, context: RunContext) -> RunResult:
        try:
            return await run_kind(run, context)
        except RunError as error:
            return RunResult.failed(error, context)
        except (AppendRefused, Fenced, StoreDown):
            raise
        except Exception:  # a defect of ours must end this run, not this worker
            log.exception("run.defect")
            defect = InternalError("The server failed inside; its log has the details.")
            return RunResult.failed(defect, context)

    async def _finish(self, run: Run, outcome: Outcome, attempt_log: AttemptLog) -> None:
        try:
            decided = await self._persist(lambda: self._attempts.decide(run, outcome))
        except Fenced:
            self._reason = Interrupt.FENCED
            await self._leave(run)
            return
        if await self._attempts.publish(decided, attempt_log):
            await self._persist(lambda: self._attempts.records.mark_published(decided))
        log.info("run.ended", status=str(outcome.status), code=outcome.code)

    async def _leave(self, run: Run) -> None:
        """Ends the attempt without an outcome: back into the queue, or in silence when fenced."""
        reason = self._reason or Interrupt.DRAIN
        event = "attempt.fenced" if reason is Interrupt.FENCED else "attempt.left"
        level = logging.INFO if reason is Interrupt.DRAIN else logging.WARNING
        log.log(level, event, reason=str(reason))
        self._attempts.metrics.attempts_left.labels(reason).inc()
        if reason is not Interrupt.FENCED:
            await self._persist(lambda: self._attempts.hand_back(run, spent=reason in SPENT))

    async def _persist(self, action: Callable[[], Awaitable[T]]) -> T:
        """Repeats an idempotent action until the store answers. Raises `Fenced` once it is late."""
        tries = 0
        while True:
            try:
                return await action()
            except StoreDown as down:
                if self._reason is Interrupt.FENCED:
                    raise Fenced("The lease was lost while the store was away.") from down
                log.warning("store.retry", error=down.message)
            await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
            tries += 1

    def _measure_wait(self, run: Run) -> None:
        if run.attempt == 1 and run.started is not None:
            waited = (run.started - run.created).total_seconds()
            self._attempts.metrics.queue_wait.labels(run.queue).observe(waited)

    def _refused(self, answer: Answer) -> None:
        log.warning("attempt.refused", answer=str(answer), run_id=self.run_id)
        self.interrupt(BY_ANSWER[answer])


def timed_out(run: Run, content: str) -> Outcome:
    """The end of a run whose clock ran out while it was running."""
    setting = "STREAM_TIMEOUT_SECONDS" if run.streamed else "MACHINA_RUN_TIMEOUT_SECONDS"
    return failure(
        DeadlineExceeded(
            f"The run took longer than {run.limit_seconds:g} s; raise {setting} or shorten it."
        ),
        content=content,
    )


def outcome_of(result: RunResult) -> Outcome:
    """What the record keeps of what the engine returned."""
    outcome = Outcome(RunStatus.EXECUTED) if result.error is None else failure(result.error)
    outcome.content = result.content
    outcome.state = result.state
    outcome.objects = result.objects
    outcome.suggestions = result.suggestions
    outcome.thread_id = result.thread_id
    outcome.document_id = result.document_id
    return outcome


def _standing(run: Run) -> str:
    """The text that still stands of earlier attempts."""
    return run.checkpoint.content if run.checkpoint is not None else ""


def _forget_cancellation() -> None:
    current = asyncio.current_task()
    if current is not None:
        current.uncancel()
