"""Starting a run: the one order in which every starting route asks and refuses.

Caller (401) → target (404) → idempotency key: a join is never refused by what follows → breaker
(503) → gate (429) → record, queue. A refusal leaves the key unused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple

import orjson
import structlog
from fastapi import Depends, Header

from machina.admission import Handle
from machina.api.bodies import StartBody
from machina.api.deps import HandleDep, ResourcesDep, not_draining
from machina.api.security import Caller
from machina.auth import Principal
from machina.errors import Invalid, NotFound, Unavailable
from machina.queue.names import Queue
from machina.resources import Resources
from machina.runs.lifecycle import RunRequest
from machina.runs.run import Run, RunKind

TargetKind = Literal["agent", "workflow", "connector", "prompt"]

_KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")


class Started(NamedTuple):
    """A run to show: `created` is False when an earlier request with the same key made it."""

    run: Run
    created: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """A way to start a run. Requests of the same name and key mean the same run."""

    name: str
    kind: TargetKind
    queue: Queue
    streamed: bool = False

    @property
    def run_kind(self) -> RunKind:
        """The kind of its runs: connectors and prompts are called, in a single task."""
        return self.kind if self.kind in ("agent", "workflow") else "task"


class Starter:
    """Starts runs for one request."""

    def __init__(
        self, resources: Resources, caller: Principal, handle: Handle, key: str | None
    ) -> None:
        self._resources = resources
        self._caller = caller
        self._handle = handle
        self.key = key

    async def start(self, operation: Operation, target: str, body: StartBody) -> Started:
        """The run this request asks for, made now or by an earlier request with the same key.

        Raises:
            NotFound: no such agent or workflow.
            IdempotencyMismatch: the key was used with another body.
            BreakerOpen, TooManyViewers, Overloaded: no stream can be started now.
            Unavailable: the store or the queue is away; nothing was started.
        """
        definition = await self.find(operation.kind, target)
        idempotency = self._scope_hash(operation, str(definition["_id"]))
        if idempotency is not None:
            joined = await self._resources.runs.find_joined(idempotency, body.fingerprint)
            if joined is not None:
                if operation.streamed:
                    self._handle.view()
                return Started(joined, created=False)
        request = RunRequest(
            project=self._caller.project,
            principal=self._caller.id,
            kind=operation.run_kind,
            target_id=str(definition["_id"]),
            target_name=str(definition["name"]),
            queue=operation.queue,
            inputs=body.payload,
            streamed=operation.streamed,
            stream_workflows=body.stream_workflows,
            cancel_on_disconnect=body.cancel_on_disconnect,
            thread_id=body.thread_id,
            idempotency=idempotency,
            fingerprint=body.fingerprint if idempotency is not None else None,
            may_administer=self._caller.is_admin,
        )
        if operation.streamed:
            await self._handle.start()
        return await self._submit(request)

    async def _submit(self, request: RunRequest) -> Started:
        try:
            run, created = await self._resources.runs.submit(request)
        except Unavailable:
            self._handle.failed()
            raise
        structlog.contextvars.bind_contextvars(run_id=run.id)
        return Started(run, created)

    async def find(self, kind: TargetKind, target: str) -> dict[str, Any]:
        """The definition that is to run. Raises `NotFound` when there is none."""
        definitions = self._resources.store.definitions
        found = await definitions.get(self._caller.project, kind, target)
        if found is None:
            raise NotFound(f"There is no {kind} '{target[:80]}'.", field=kind)
        return found

    def _scope_hash(self, operation: Operation, target_id: str) -> str | None:
        """What makes a key unique: the same text used elsewhere is another key."""
        if self.key is None:
            return None
        scope = [self._caller.project, self._caller.id, operation.name, target_id, self.key]
        return hashlib.sha256(orjson.dumps(scope)).hexdigest()


async def idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Makes a retry safe: the same key and body mean the same run, which is "
            "joined from its beginning; the same key with another body is refused with 409.",
            examples=["6f1c2a90-order-17"],
        ),
    ] = None,
) -> str | None:
    """The caller's key. Raises `Invalid` when it is not 1 to 255 printable characters."""
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid(
            "'Idempotency-Key' must be 1 to 255 printable ASCII characters.",
            field="Idempotency-Key",
        )
    return key


async def starter(
    resources: ResourcesDep,
    principal: Caller,
    handle: HandleDep,
    key: Annotated[str | None, Depends(idempotency_key)],
    _: Annotated[None, Depends(not_draining)],
) -> Starter:
    """What starts the run of this request."""
    return Starter(resources, principal, handle, key)


StarterDep = Annotated[Starter, Depends(starter)]
