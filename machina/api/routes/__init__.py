"""The table of contents: every router, in the order in which the documentation shows them."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from machina.api.routes import agents, executions, metrics, system, workflows

ROUTERS: Final[tuple[APIRouter, ...]] = (
    agents.router,
    workflows.router,
    executions.router,
    system.router,
    metrics.router,
)
"""Paths and scopes stand with the routes; every path needs a key unless `security.py` names it."""
