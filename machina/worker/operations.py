"""What templates may ask the server itself for: five operations under the names of workflows.

An installed workflow of the same name goes first. All of them stay inside the run's project; a
client's run sees its own runs and cannot change secrets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from machina.errors import (
    BudgetExceeded,
    DefinitionInvalid,
    DefinitionMissing,
    QueueDown,
    RequestError,
    TaskFailed,
    VaultLocked,
)
from machina.queue.names import Queue
from machina.runs.lifecycle import RunRequest, Runs
from machina.runs.run import Run, RunStatus, public_status
from machina.store.definitions import DefinitionStore
from machina.store.secrets import SecretStore

MAX_PAGE: Final = 10_000
"""Definitions or names in one answer, as for every search of a template."""
PAGE: Final = 10
MAX_SCHEDULED: Final = 50
"""Runs that one run may schedule."""
MAX_GENERATION: Final = 5
"""How many runs may schedule each other in a row: this ends a workflow that schedules itself."""

Inputs = Mapping[str, Any]
Outputs = dict[str, Any]


class Operations:
    """The operations of one worker process. Every one raises `StoreDown` when the store is away."""

    def __init__(self, runs: Runs, definitions: DefinitionStore, secrets: SecretStore) -> None:
        self.runs = runs
        self.definitions = definitions
        self.secrets = secrets

    def of_run(self, run: Run) -> RunOperations:
        """The operations for one attempt of a run, and in its name."""
        return RunOperations(self, run)


class RunOperations:
    """What one run may do."""

    def __init__(self, operations: Operations, run: Run) -> None:
        self._all = operations
        self._run = run
        self._scheduled = 0
        self.table: Final[Mapping[str, Callable[[Inputs, str], Awaitable[Outputs]]]] = {
            "workflow-search": self._search_workflows,
            "workflow-schedule": self._schedule,
            "workflow-schedule-get": self._look_up,
            "vault-search": self._search_vault,
            "vault-update": self._update_vault,
        }

    async def do(self, name: str, inputs: Inputs, key: str) -> Outputs:
        """Does one operation; its outputs. Doing it again under the same key is doing it once.

        Raises:
            RunError: it cannot be done; the message says what to change.
        """
        try:
            return await self.table[name](inputs, key)
        except RequestError as refused:
            raise TaskFailed(f"{name}: {refused.message}", code=refused.code) from refused
        except (QueueDown, VaultLocked) as unable:
            raise TaskFailed(
                f"{name}: {unable.message}", code=unable.code, retryable=unable.retryable
            ) from unable

    async def _search_workflows(self, inputs: Inputs, _: str) -> Outputs:
        page, size = _paging(inputs)
        found, total = await self._all.definitions.search(
            self._run.project,
            "workflow",
            _filters(inputs),
            skip=(page - 1) * size,
            limit=size,
        )
        return {"workflows": found, "total": total, "page": page, "page_size": size}

    async def _schedule(self, inputs: Inputs, key: str) -> Outputs:
        name = _text(inputs, "name", "workflow-schedule")
        self._check_may_schedule(name)
        payload = inputs.get("inputs")
        if payload is not None and not isinstance(payload, Mapping):
            raise DefinitionInvalid(
                "'inputs' of workflow-schedule must be a dictionary: the payload of the workflow."
            )
        definition = await self._all.definitions.get(self._run.project, "workflow", name)
        if definition is None:
            raise DefinitionMissing(f"The workflow '{name}' is not installed; install it.")
        run, _ = await self._all.runs.submit(
            RunRequest(
                project=self._run.project,
                principal=self._run.principal,
                kind="workflow",
                target_id=str(definition["_id"]),
                target_name=str(definition["name"]),
                queue=Queue.LOW,
                inputs=dict(payload or {}),
                idempotency=key,
                fingerprint=key,
                generation=self._run.generation + 1,
                may_administer=self._run.may_administer,
            )
        )
        self._scheduled += 1
        return _named(run) | {"name": run.target_name, "status": str(run.status)}

    def _check_may_schedule(self, name: str) -> None:
        problem = None
        if self._scheduled >= MAX_SCHEDULED:
            problem = f"this run scheduled {MAX_SCHEDULED} others already"
        elif self._run.generation >= MAX_GENERATION:
            problem = f"it would be number {MAX_GENERATION + 1} of runs that schedule each other"
        if problem is not None:
            raise BudgetExceeded(
                f"workflow-schedule did not schedule '{name}': {problem}. Use an agent with a "
                "schedule for work that goes on."
            )

    async def _look_up(self, inputs: Inputs, _: str) -> Outputs:
        run_id = _text(inputs, "run_id", "workflow-schedule-get")
        principal = None if self._run.may_administer else self._run.principal
        run = await self._all.runs.get(run_id, project=self._run.project, principal=principal)
        shown: Outputs = _named(run) | {
            "name": run.target_name,
            "status": public_status(run.kind, run.status),
            "created": run.created,
            "started_time": run.started,
            "finished_time": run.finished,
            "workflow_output": dict(run.outcome.state) if run.outcome is not None else {},
        }
        if run.outcome is not None and run.status is not RunStatus.EXECUTED:
            shown["error"] = {"code": run.outcome.code, "message": run.outcome.message}
        return shown

    async def _search_vault(self, inputs: Inputs, _: str) -> Outputs:
        page, size = _paging(inputs)
        found, total = await self._all.secrets.names(
            self._run.project, _filters(inputs), skip=(page - 1) * size, limit=size
        )
        rows = [
            {"_id": row.id, "name": row.name, "created": row.created, "updated": row.updated}
            for row in found
        ]
        return {"vault": rows, "total": total, "page": page, "page_size": size}

    async def _update_vault(self, inputs: Inputs, _: str) -> Outputs:
        if not self._run.may_administer:
            raise TaskFailed(
                "vault-update changes secrets, which a client's key may not; start the run with an "
                "administrator's key.",
                code="forbidden",
            )
        name = _text(inputs, "name", "vault-update")
        value = inputs.get("value")
        if isinstance(value, Mapping | list):
            value = orjson.dumps(value, default=str).decode()
        if not isinstance(value, str) or not value:
            raise DefinitionInvalid("'value' of vault-update must be a text that is not empty.")
        is_new = await self._all.secrets.put(self._run.project, name, value)
        return {"name": name.removeprefix("$"), "created": is_new}


def _named(run: Run) -> Outputs:
    return {"_id": run.id, "run_id": run.id, "workflow_run_id": run.id}


def _text(inputs: Inputs, field: str, operation: str) -> str:
    value = inputs.get(field)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise DefinitionInvalid(f"'{field}' of {operation} must be a text that is not empty.")


def _filters(inputs: Inputs) -> Mapping[str, Any]:
    filters = inputs.get("filters")
    if filters is None:
        return {}
    if not isinstance(filters, Mapping):
        raise DefinitionInvalid("'filters' must be a dictionary of fields and conditions.")
    return {name: _condition(part) for name, part in filters.items() if _is_set(part)}


def _is_set(condition: Any) -> bool:
    """A condition that came out null is one that was not wanted, as in searches of documents."""
    if isinstance(condition, Mapping) and condition:
        return any(part is not None for part in condition.values())
    return condition is not None


def _condition(condition: Any) -> Any:
    if not isinstance(condition, Mapping):
        return condition
    return {name: part for name, part in condition.items() if part is not None}


def _paging(inputs: Inputs) -> tuple[int, int]:
    return _number(inputs, "page", 1, MAX_PAGE), _number(inputs, "page_size", PAGE, MAX_PAGE)


def _number(inputs: Inputs, field: str, default: int, most: int) -> int:
    value = inputs.get(field)
    if value is None:
        return default
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1:
        raise DefinitionInvalid(f"'{field}' must be a whole number from 1 to {most}.")
    return min(number, most)
