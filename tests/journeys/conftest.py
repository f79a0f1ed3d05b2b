"""Fixtures of the journeys: one `dev` for those that only look, more for those that break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.harness import Dev, running_dev


@pytest.fixture(scope="session")
def shared_dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A ready `dev` for the whole session: for tests that neither kill nor fill anything."""
    with running_dev(tmp_path_factory.mktemp("shared-dev")) as dev:
        yield dev


@pytest.fixture
def shared_client(shared_dev: Dev) -> Iterator[httpx.Client]:
    """A client of the shared `dev` with its admin key."""
    with shared_dev.client() as client:
        yield client


@pytest.fixture
def start_dev(tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    """Starts a ready `dev` of the test's own; everything is ended after the test."""
    with ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> Dev:
            return stack.enter_context(running_dev(tmp_path, *arguments, **options))

        yield start
