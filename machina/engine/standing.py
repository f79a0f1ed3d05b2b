"""Whether an agent would end as failed if it ended now; survives in the checkpoint."""

from __future__ import annotations

from typing import Any, Final

from machina.errors import ExpressionFailed, RunError, TaskFailed

KEY: Final = "machina:standing"
"""Where a checkpoint's state keeps it; no author's key looks like this."""


class Standing:
    """An agent fails when its last executed step failed, or when nothing ran because of errors."""

    def __init__(self, failure: RunError | None = None, *, ran: bool = False) -> None:
        self.failure = failure
        self._ran = ran

    def succeed(self) -> None:
        """A step ran well; earlier failures no longer count."""
        self.failure, self._ran = None, True

    def fail(self, error: RunError) -> None:
        """A step failed."""
        self.failure, self._ran = error, True

    def doubt(self, error: ExpressionFailed) -> None:
        """A condition raised and so counted as false; that matters if nothing ever runs."""
        if not self._ran and self.failure is None:
            self.failure = error

    def save(self) -> dict[str, Any]:
        """What the checkpoint adds to the state; nothing for the ordinary case."""
        if self._ran and self.failure is None:
            return {}
        failure = None
        if self.failure is not None:
            names = ("code", "message", "retryable", "workflow", "task")
            failure = {name: getattr(self.failure, name) for name in names}
        return {KEY: {"ran": self._ran, "failure": failure}}

    @classmethod
    def load(cls, state: dict[str, Any]) -> Standing:
        """Takes it out of a checkpoint's state again."""
        saved = state.pop(KEY, None)
        if saved is None:
            return cls(ran=True)
        failure = saved["failure"]
        if failure is None:
            return cls(ran=saved["ran"])
        error = TaskFailed(failure["message"], code=failure["code"], retryable=failure["retryable"])
        error.workflow, error.task = failure["workflow"], failure["task"]
        return cls(error, ran=saved["ran"])
