"""Evaluates blocks of expressions with the format's rules for what an error in each of them means.

Every evaluation of the engine passes through these coroutines: this is where they would move off
the event loop, and where a run that computed for a while gives the others a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import structlog

from machina.engine.context import RunContext
from machina.errors import BudgetExceeded, ExpressionFailed
from machina.expressions import Scope, evaluate, is_true

log = structlog.get_logger(__name__)


async def evaluate_value(ctx: RunContext, value: Any, scope: Scope, where: str) -> Any:
    """One value, where an error fails the task.

    Raises:
        ExpressionFailed: the expression raised; `BudgetExceeded` when it used too much.
    """
    await ctx.breathe()
    return evaluate(value, scope, where=where)


async def evaluate_block(
    ctx: RunContext,
    block: Mapping[str, Any],
    scope: Scope,
    where: str,
    *,
    into: dict[str, Any] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Inputs or outputs, key by key in file order; one that raises becomes null and is logged.

    `quiet` leaves out the log, for a trial whose errors mean nothing. `into` receives the values
    as they come, so that a scope which falls back to it lets later keys read earlier ones.

    Raises:
        BudgetExceeded: an expression used too much; that always fails the task.
    """
    values: dict[str, Any] = {} if into is None else into
    await ctx.breathe()
    for key, value in block.items():
        try:
            values[key] = evaluate(value, scope, where=f"{where}.{key}")
        except BudgetExceeded:
            raise
        except ExpressionFailed as error:
            values[key] = None
            if not quiet:
                log.warning("expression.failed", where=f"{where}.{key}", error=error.message)
    return values


async def check_conditions(
    ctx: RunContext, conditions: Iterable[Any], scope: Scope, where: str
) -> tuple[bool, ExpressionFailed | None]:
    """Whether all hold; one that raises counts as false, is logged, and comes back as well.

    Raises:
        BudgetExceeded: a condition used too much.
    """
    await ctx.breathe()
    for condition in conditions:
        try:
            if not is_true(condition, scope, where=where):
                return False, None
        except BudgetExceeded:
            raise
        except ExpressionFailed as error:
            log.warning("expression.failed", where=where, error=error.message)
            return False, error
    return True, None
