"""Prompts and embeddings against a real provider: what a model is asked, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from machina.resources import Resources
from machina.worker.crew import WorkerCrew
from tests.conformance.case_files import Case
from tests.conformance.runner import VAULT_KEY, Deployment, Seen, answer
from tests.egress.server import Seen as Request
from tests.egress.server import Server
from tests.fleet import make_settings, open_process, open_worker
from tests.provider_server import ProviderServer, SeenRequest
from tests.services import RedisServer, find_redis_6, require

FOLDER: Final = "agents/provider"


class ModelDeployment(Deployment):
    """A deployment whose `requests` are those that the provider got."""

    def __init__(
        self,
        api: Resources,
        worker: WorkerCrew,
        server: Server,
        directory: Path,
        provider: ProviderServer,
    ) -> None:
        super().__init__(api, worker, server, directory)
        self._provider = provider

    async def run(self, case: Case) -> Seen:
        self._provider.requests.clear()
        seen = await super().run(case)
        seen.requests = [_as_request(asked) for asked in self._provider.requests]
        return seen


def _as_request(asked: SeenRequest) -> Request:
    headers = {"content-type": "application/json"} | asked.headers
    return Request("POST", asked.path, headers, json.dumps(asked.body).encode())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """The deployment of the suite with a provider behind it."""
    directory = tmp_path_factory.mktemp("conformance-provider")
    redis = RedisServer(require(find_redis_6, optional=False))
    try:
        async with ProviderServer() as provider, Server(answer) as server:
            settings = make_settings(
                directory / "store",
                redis.url,
                vault_key=VAULT_KEY,
                work_dir=directory / "work",
                openai_base_url=provider.base_url,
                openai_api_key="provider-key",
                model="operators-model",
                embedding_model="operators-embedding",
            )
            async with open_process(settings) as api, open_worker(settings) as worker:
                yield ModelDeployment(api, worker, server, directory, provider)
    finally:
        redis.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_provider_is_asked_as_the_case_says(case: Case, deployment: Deployment) -> None:
    await deployment.prove(case)
