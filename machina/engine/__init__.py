"""Walks agents and workflows: definitions and a payload go in, events and a result come out."""

from machina.engine.agent import run_agent
from machina.engine.context import Doors, Emit, RunContext
from machina.engine.results import RunResult
from machina.engine.single import run_single
from machina.engine.skill import run_skill
from machina.engine.workflow_run import run_workflow

__all__ = [
    "Doors",
    "Emit",
    "RunContext",
    "RunResult",
    "run_agent",
    "run_single",
    "run_skill",
    "run_workflow",
]
