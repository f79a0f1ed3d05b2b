"""What `dev` says once it runs: three things to try."""

from __future__ import annotations

import shlex
from typing import Final

from machina import __version__
from machina.cli.directory import DataDirectory
from machina.settings import Settings

_TEXT: Final = """
Machina {version} runs at {url} and keeps its data in {directory}.
{model}
{scripts}

Try next:

1. Stream the sample agent (-i shows the headers, among them X-Run-Id):

   curl -iN {url}/agent/stream/hello \\
     -H "Authorization: Bearer $(cat {key})" \\
     -H "Content-Type: application/json" \\
     -d '{{"messages": [{{"role": "user", "content": "What can you do?"}}]}}'

2. Read the documentation of the API:

   {url}/docs

3. Resume that stream after an event you saw; put the X-Run-Id in the place of RUN_ID:

   curl -N "{url}/execution/agent-run/RUN_ID/stream?after=1-3" \\
     -H "Authorization: Bearer $(cat {key})"

Ctrl-C stops it; the next start goes on with the same data.
"""


def welcome(url: str, settings: Settings, directory: DataDirectory) -> str:
    """The text, with commands that can be pasted as they are."""
    if settings.openai_api_key is None and settings.openai_base_url is None:
        model = (
            "A scripted model answers; set OPENAI_API_KEY or OPENAI_BASE_URL, and start again, "
            "for a real one."
        )
    else:
        place = settings.openai_base_url or "https://api.openai.com/v1"
        model = f"The model {settings.model} at {place} answers."
    scripts = (
        "Python scripts of connectors run, shut in as well as this machine can; "
        "MACHINA_SCRIPTS=off stops that."
        if settings.runs_scripts
        else "Python scripts of connectors do not run (MACHINA_SCRIPTS)."
    )
    return _TEXT.format(
        version=__version__,
        url=url,
        directory=directory.path,
        model=model,
        scripts=scripts,
        key=shlex.quote(str(directory.admin_key)),
    ).rstrip("\n")
