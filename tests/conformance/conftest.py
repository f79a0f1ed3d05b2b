"""The deployment that the cases of a module share, and the cases themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.case_files import load_cases
from tests.conformance.runner import Deployment, open_deployment
from tests.services import RedisServer, find_redis_6, require


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives `case` every case of the folder that the module names with `FOLDER`."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", load_cases(metafunc.module.FOLDER), ids=str)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """API, worker, Redis, store and HTTP server of one module."""
    redis = RedisServer(require(find_redis_6, optional=False))
    try:
        async with open_deployment(tmp_path_factory.mktemp("conformance"), redis) as deployment:
            yield deployment
    finally:
        redis.close()
