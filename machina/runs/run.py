"""The record of a run: what was asked, how far it got, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal

from machina.ids import RunId
from machina.queue.names import Queue


class RunStatus(StrEnum):
    """Where a run stands. The last four are final and are also the words of `done`."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    EXECUTED = "executed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL: Final = frozenset(
    (RunStatus.EXECUTED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMEOUT)
)

TRANSITIONS: Final[dict[RunStatus, frozenset[RunStatus]]] = {
    RunStatus.SCHEDULED: frozenset((RunStatus.RUNNING,)),
    RunStatus.RUNNING: FINAL | {RunStatus.SCHEDULED},  # back to the queue: hand-back, dead worker
    RunStatus.EXECUTED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
    RunStatus.TIMEOUT: frozenset(),
}
"""Legal transitions. Only the holder of a run's attempt ends it, hence from `running`."""

RunKind = Literal["agent", "workflow", "task", "skill"]

_PUBLIC: Final[dict[RunKind, dict[RunStatus, str]]] = {
    "agent": {RunStatus.EXECUTED: "agent-executed"},
    "workflow": {},
    "task": {},
    "skill": {},
}


def public_status(kind: RunKind, status: RunStatus) -> str:
    """The word existing clients poll for: any other keeps them polling for ever."""
    if status in (RunStatus.CANCELLED, RunStatus.TIMEOUT):
        return RunStatus.FAILED.value
    return _PUBLIC[kind].get(status, status.value)


def stored_statuses(kind: RunKind, public: str) -> tuple[str, ...]:
    """The stored words that show as a public one; a word nobody uses matches nothing."""
    return tuple(s.value for s in RunStatus if public_status(kind, s) == public or s == public)


@dataclass(slots=True)
class Outcome:
    """How a run ended, with everything its terminal events are made of."""

    status: RunStatus
    content: str = ""
    code: str | None = None
    message: str | None = None
    retryable: bool = False
    workflow: str | None = None
    task: str | None = None
    objects: list[Any] = field(default_factory=list)
    suggestions: list[Any] = field(default_factory=list)
    thread_id: str | None = None
    document_id: str | None = None
    state: dict[str, Any] = field(default_factory=dict)
    """Agent: the final state. Workflow: its outputs."""

    def to_record(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"status": str(self.status)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Outcome:
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in record.items() if k in known}
        return cls(**(values | {"status": RunStatus(record["status"])}))


@dataclass(slots=True)
class Checkpoint:
    """What a new attempt goes on from: the state after `workflow_index` finished workflows."""

    workflow_index: int
    state: dict[str, Any]
    content: str
    """Text already said that still stands."""
    task_index: int = 0
    """In a run that is one workflow: how many of its tasks are finished."""
    has_files: bool = False
    """Scripts wrote files that the rest of the run may read: without them it starts over."""

    def to_record(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Checkpoint:
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in record.items() if k in known})


@dataclass(slots=True)
class Run:
    """One execution of an agent, a workflow or a single task. All times are the store's, in UTC."""

    id: RunId
    project: str
    principal: str
    kind: RunKind
    target_id: str
    target_name: str
    queue: Queue
    inputs: dict[str, Any]
    created: datetime
    queue_deadline: datetime
    wake_at: datetime
    """When a wake-up is sent again, should nobody have claimed the run by then."""
    limit_seconds: float
    """Longest time from the first claim to the end, over all attempts."""
    streamed: bool = False
    stream_workflows: bool = False
    cancel_on_disconnect: bool = False
    thread_id: str | None = None
    thread_reserved: bool = False
    """True: no caller knows the thread yet; the first `thread` document takes this id."""
    status: RunStatus = RunStatus.SCHEDULED
    attempt: int = 0
    attempts_spent: int = 0
    worker: str | None = None
    cancel_requested: bool = False
    started: datetime | None = None
    finished: datetime | None = None
    wakes: int = 0
    checkpoint: Checkpoint | None = None
    outcome: Outcome | None = None
    published: bool = False
    """Whether the terminal event is known to be in the log."""
    total_workflows: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    """The log of its tasks, see `engine/task_log.py`."""
    may_have_repeated: list[dict[str, str]] = field(default_factory=list)
    """`{workflow, task}` with side effects that an attempt began and a later one executed."""
    generation: int = 0
    """How many runs, each scheduling the next, led to this one."""
    may_administer: bool = True
    """Whether it may change secrets; False for a run that a client's key started."""
    idempotency: str | None = None
    fingerprint: str | None = None

    @property
    def is_final(self) -> bool:
        return self.status.is_final

    @property
    def deadline(self) -> datetime | None:
        """When the run times out; None until its first claim."""
        return (
            None if self.started is None else self.started + timedelta(seconds=self.limit_seconds)
        )

    def to_record(self) -> dict[str, Any]:
        """The stored form: `_id` for `id`, nested parts as dictionaries, absent parts left out."""
        record = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "id"}
        record |= {"_id": self.id, "status": str(self.status), "queue": str(self.queue)}
        if self.checkpoint is not None:
            record["checkpoint"] = self.checkpoint.to_record()
        if self.outcome is not None:
            record["outcome"] = self.outcome.to_record()
        if self.idempotency is None:
            del record["idempotency"]
        return record

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Run:
        """Reads the stored form; fields of a newer version are ignored."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in record.items() if k in known}
        values |= {
            "id": RunId(record["_id"]),
            "status": RunStatus(record["status"]),
            "queue": Queue(record["queue"]),
        }
        if values.get("checkpoint"):
            values["checkpoint"] = Checkpoint.from_record(values["checkpoint"])
        if values.get("outcome"):
            values["outcome"] = Outcome.from_record(values["outcome"])
        return cls(**values)
