"""Workflows, tasks, expressions and secrets as the format describes them, through a real worker."""

from __future__ import annotations

from typing import Final

import pytest

from tests.conformance.case_files import Case
from tests.conformance.runner import Deployment

FOLDER: Final = "workflows"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_server_does_what_the_case_says(case: Case, deployment: Deployment) -> None:
    await deployment.prove(case)
