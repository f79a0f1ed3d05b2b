"""Every error this system can name.

One error has one name. `code` is the last segment of the problem's `type`, the `error.id` of the
envelope and the `metadata.code` of an in-stream `error` event. `docs/errors.md` draws the tree and
says what each code means and what to do about it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class MachinaError(Exception):
    """Root of all errors raised on purpose. `message` is written for the person who must act."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    default_retry_after: ClassVar[float | None] = None
    """Seconds a caller should wait where nobody knows better; None: trying again is no remedy."""

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        field: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.message = message or self.title
        if code is not None:
            self.code = code  # type: ignore[misc]  # an instance may be more precise than its class
        if retryable is not None:
            self.retryable = retryable  # type: ignore[misc]  # same
        self.field = field
        self.retry_after = retry_after if retry_after is not None else self.default_retry_after
        self.details = details or {}
        super().__init__(self.message)

    @property
    def type(self) -> str:
        """The problem type of RFC 9457, a relative reference that ends in the code."""
        return f"/errors/{self.code}"


class RequestError(MachinaError):
    """The caller must change something."""

    code, title, status = "bad_request", "Bad request", 400


class Invalid(RequestError):
    """A field of the request is missing or wrong; `field` names it."""

    code, title, status = "invalid_request", "Invalid request", 422


class MalformedEventId(Invalid):
    """A resume id is not of the form `<attempt>-<seq>`."""

    code, title, status = "bad_resume_id", "Malformed event id", 400


class Unauthenticated(RequestError):
    """No key, or none that is valid."""

    code, title, status = "unauthenticated", "Authentication required", 401


class Forbidden(RequestError):
    """The key is valid and its scope does not allow this."""

    code, title, status = "forbidden", "Forbidden", 403


class NotFound(RequestError):
    """Unknown, or not the caller's: the two are not told apart."""

    code, title, status = "not_found", "Not found", 404


class Conflict(RequestError):
    """The request contradicts what is stored."""

    code, title, status = "conflict", "Conflict", 409


class IdempotencyMismatch(Conflict):
    """The idempotency key was used before with another body."""

    code, title = "idempotency_mismatch", "Idempotency key reused with another body"


class ResumeAhead(Conflict):
    """The resume id lies ahead of the log; `details.newest` is where it ends."""

    code, title = "resume_ahead", "Resume id is ahead of the stream"


class Gone(RequestError):
    """The log of a finished run has expired; the run's record is still there."""

    code, title, status = "stream_expired", "Stream expired", 410


class TooLarge(RequestError):
    """The body, its nesting or its numbers exceed a limit."""

    code, title, status = "body_too_large", "Request body too large", 413


class Overloaded(RequestError):
    """All permits of the gate are taken."""

    code, title, status, retryable = "too_many_streams", "Too many concurrent streams", 429, True
    default_retry_after = 1.0


class Unavailable(MachinaError):
    """Nothing is wrong with the request; try again later."""

    code, title, status, retryable = "unavailable", "Service temporarily unavailable", 503, True
    default_retry_after = 2.0


class BreakerOpen(Unavailable):
    """The circuit breaker refuses new streams until its next probe."""

    code, title = "breaker_open", "Circuit breaker open"


class Draining(Unavailable):
    """This process is shutting down; another instance will answer."""

    code, title = "draining", "Shutting down"


class TooManyViewers(Unavailable):
    """This process already relays as many streams as it may."""

    code, title = "too_many_viewers", "Too many viewers"


class VaultLocked(Unavailable):
    """Secrets cannot be sealed or opened: the key of the vault is missing, or is another one."""

    code, title, retryable = "vault_locked", "Vault is locked", False
    default_retry_after = 60.0


class StoreDown(Unavailable):
    """The store did not answer."""

    code, title = "store_unavailable", "Store unavailable"


class QueueDown(Unavailable):
    """The broker did not accept the message."""

    code, title = "queue_unavailable", "Queue unavailable"


class QueueAmbiguous(QueueDown):
    """The message was sent and the broker's answer was lost: it may or may not be queued."""


class LogDown(Unavailable):
    """The event log did not answer."""

    code, title = "log_unavailable", "Event log unavailable"


class RunError(MachinaError):
    """Ends a run. `workflow` and `task` say where, once the engine knows."""

    code, title, status = "run_failed", "Run failed", 500
    workflow: str | None = None
    task: str | None = None


class DefinitionMissing(RunError):
    """A run names an agent, workflow, prompt, connector or mapping that is not installed."""

    code, title = "definition_missing", "Definition missing"


class DefinitionInvalid(RunError):
    """A part of a definition has a shape that cannot be run; the message names the field."""

    code, title = "definition_invalid", "Definition invalid"


class TaskFailed(RunError):
    """A task failed and the workflow may not continue without it."""

    code, title = "task_failed", "Task failed"


class TaskTypeUnknown(RunError):
    """A workflow has a task of a type that this server does not run."""

    code, title = "task_type_unknown", "Unknown task type"


class ConnectorFailed(RunError):
    """A connector is not there, refused, broke off or cannot run here; `code` says which."""

    code, title = "connector_failed", "Connector failed"


class SecretMissing(RunError):
    """A call failed and a secret it names is in neither the vault nor the environment."""

    code, title = "secret_missing", "Secret missing"


class ExpressionFailed(RunError):
    """An expression could not be evaluated; the message quotes it."""

    code, title = "expression_error", "Expression failed"


class BudgetExceeded(ExpressionFailed):
    """An expression asked for more steps, memory or time than it may use. Always fails the task."""

    code, title = "sandbox_limit", "Limit exceeded"


class ModelFailed(RunError):
    """The provider of a model refused, broke off or answered nonsense; `code` says which."""

    code, title = "model_error", "Model failed"


class AttemptsExhausted(RunError):
    """Every attempt of the run died or failed for reasons of the infrastructure."""

    code, title = "attempts_exhausted", "All attempts failed"


class StorageFull(RunError):
    """The Redis of the event log takes no more: what the run says cannot be kept."""

    code, title, retryable = "storage_full", "Event log is full", True


class InternalError(RunError):
    """A defect of this server."""

    code, title = "internal_error", "Internal error"


class DeadlineExceeded(RunError):
    """A clock of the run ran out: `timeout` while running, `queue_timeout` while waiting."""

    code, title, status = "timeout", "Deadline exceeded", 504


class EgressFailed(MachinaError):
    """A call to the outside was refused, or broke off; whoever made it says in whose name."""

    code, title, status = "egress_broken", "Call to the outside failed", 502


class Fenced(MachinaError):
    """A newer attempt exists, or this process lost its lease: stop, touch nothing."""

    code, title, status = "fenced", "Attempt superseded", 409


class SettingsInvalid(MachinaError):
    """A setting has a value this process cannot start with."""

    code, title = "settings_invalid", "Invalid settings"
