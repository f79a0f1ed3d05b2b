"""Calls of scripts in one line each, and connectors that are closed afterwards."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.scripts import ScriptConnector, open_scripts
from machina.errors import ConnectorFailed
from machina.settings import Settings

RUN = "65f000000000000000000001"
OTHER_RUN = "65f000000000000000000002"
SAMPLES = Path(__file__).parent / "script_samples"


def script_settings(tmp_path: Path, **fields: Any) -> Settings:
    """Settings of a `dev` in which scripts run, with fields by their names."""
    given = {"scripts": True, "environment": "dev", "work_dir": tmp_path / "work", **fields}
    return Settings(_env_file=None, **given)


@asynccontextmanager
async def opened(tmp_path: Path, **fields: Any) -> AsyncIterator[ScriptConnector]:
    """A connector of these settings."""
    async with open_scripts(script_settings(tmp_path, **fields)) as scripts:
        assert isinstance(scripts, ScriptConnector)
        yield scripts


def call_of(source: str, command: str = "run", **more: Any) -> ConnectorCall:
    """A call of a function in a script; the source may be indented."""
    definition: Mapping[str, Any] = {
        "name": "demo",
        "filetype": "pyscript",
        "filename": "demo.py",
        "filecontent": textwrap.dedent(source),
    }
    given: dict[str, Any] = {
        "run_id": RUN,
        "name": "demo",
        "command": command,
        "definition": definition,
        "where": "task 'ask' of workflow 'flow'",
    }
    return ConnectorCall(**(given | more))


def body(*lines: str) -> str:
    """A script whose function `run` has these lines."""
    return "def run(request):\n" + "".join(f"    {line}\n" for line in lines)


async def run(scripts: ScriptConnector, source: str, command: str = "run", **more: Any) -> Any:
    """The data that a script returns."""
    return (await reply(scripts, source, command, **more)).data


async def reply(
    scripts: ScriptConnector, source: str, command: str = "run", **more: Any
) -> ConnectorReply:
    """All that a script returns."""
    return await scripts.call(call_of(source, command, **more))


async def failure(
    scripts: ScriptConnector, source: str, command: str = "run", **more: Any
) -> ConnectorFailed:
    """How a script fails."""
    with pytest.raises(ConnectorFailed) as raised:
        await scripts.call(call_of(source, command, **more))
    return raised.value
