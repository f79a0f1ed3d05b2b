"""The table of contents: every router, in the order in which the documentation shows them."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from machina.api.routes import (
    agents,
    connectors,
    documents,
    executions,
    hosted,
    metrics,
    schedules,
    secrets,
    system,
    templates,
    vault,
    workflows,
)
from machina.api.routes.definitions import definition_router

ROUTERS: Final[tuple[APIRouter, ...]] = (
    agents.router,
    definition_router("agent"),
    workflows.router,
    definition_router("workflow"),
    definition_router("prompt"),
    connectors.prompt_router,
    definition_router("connector"),
    connectors.router,
    definition_router("mapping"),
    definition_router("skill"),
    documents.router,
    secrets.router,
    vault.router,
    executions.router,
    schedules.router,
    templates.router,
    hosted.router,
    system.router,
    metrics.router,
)
"""Paths and scopes stand with the routes; every path needs a key unless `security.py` names it."""
