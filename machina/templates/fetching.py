"""Repositories as requests name them: checked, looked up, cloned, read. Blocking throughout."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from machina.egress.policy import EgressPolicy
from machina.settings import Settings
from machina.templates.bundle import FileRefused
from machina.templates.git import Checkout, Limits, cloned
from machina.templates.plan import Plan, Source
from machina.templates.repository import Repository, check_branch, pin, read_repository
from machina.templates.sources import GitRequest, list_templates, read_plans

Found = list[Plan] | FileRefused
"""The plans that one name of a template stands for, or why there are none."""

_Result = TypeVar("_Result")


def fetch(
    request: GitRequest, templates: Sequence[str], settings: Settings, stop: threading.Event
) -> tuple[list[Found], Source]:
    """The plans of some templates of the repository a request names, or why there are none.

    Raises:
        GitRefused: the repository may not be cloned.
        GitFailed: it cannot be.
    """

    def read(checkout: Checkout) -> tuple[list[Found], Source]:
        plans = [_read(checkout, template) for template in templates]
        source = Source(
            "git",
            _repository(request, settings).url,
            request.branch,
            checkout.commit,
            request.private or request.token is not None,
        )
        return plans, source

    return _with_clone(request, settings, stop, read)


def _read(checkout: Checkout, template: str) -> Found:
    try:
        return read_plans(checkout.bundle, template=template)
    except FileRefused as refused:
        return refused


def list_remote(
    request: GitRequest, settings: Settings, stop: threading.Event
) -> list[dict[str, Any]]:
    """Every template of a repository. Raises as `fetch`."""
    return _with_clone(request, settings, stop, lambda checkout: list_templates(checkout.bundle))


def _with_clone(
    request: GitRequest,
    settings: Settings,
    stop: threading.Event,
    use: Callable[[Checkout], _Result],
) -> _Result:
    """What `use` makes of a clone, which is gone afterwards."""
    repository = _repository(request, settings)
    branch = check_branch(request.branch)
    pinned = pin(repository, EgressPolicy.from_settings(settings))
    limits = Limits(settings.git_timeout_seconds, settings.git_max_bytes)
    with cloned(repository, branch, limits, pinned=pinned, stop=stop) as checkout:
        return use(checkout)


def _repository(request: GitRequest, settings: Settings) -> Repository:
    return read_repository(request.url, token=request.token, allowed=settings.git_allow)
