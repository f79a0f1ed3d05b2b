"""Which connectors this process can call: the table of their types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial

from machina.connectors.llm.pairs import call_model
from machina.connectors.registry import REST, SCRIPT, Connectors
from machina.connectors.rest import HttpConnector, RestConnector
from machina.connectors.scripts import ScriptConnector, ScriptsOff
from machina.egress import EgressClient
from machina.settings import Settings
from machina.worker.providers import Providers


@asynccontextmanager
async def open_connectors(
    settings: Settings, providers: Providers, scripts: ScriptConnector | ScriptsOff
) -> AsyncIterator[Connectors]:
    """The connectors of one worker process, with one pool of connections for all of them."""
    async with aclosing(EgressClient.from_settings(settings)) as client:
        types = {REST: RestConnector(client, scripts.directory), SCRIPT: scripts}
        async with aclosing(
            Connectors(
                types, HttpConnector(client), partial(call_model, providers), providers.serves
            )
        ) as connectors:
            yield connectors
