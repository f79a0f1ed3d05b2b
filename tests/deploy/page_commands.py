"""The commands of docs/operations.md that are marked to be run, and what it says they answer."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Any, Final

from tests.deploy.production import ROOT

PAGE: Final = ROOT / "docs" / "operations.md"
ORIGIN: Final = "http://localhost:5003"
_BLOCK: Final = re.compile(
    r"<!-- verify(?P<kind>[ a-z]*) -->\n```sh\n(?P<command>.*?)```\n(?:```json\n(?P<body>.*?)```)?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class PageCommand:
    """One curl call of the page."""

    kind: str
    """`` for anybody's, `stream`, or `admin`."""
    method: str
    path: str
    headers: Mapping[str, str]
    data: str | None
    expected: Any
    """The JSON body that the page shows, or None."""


def read_page_commands(values: Mapping[str, str]) -> list[PageCommand]:
    """All of them, in order; `values` replace `$NAMES` as a shell would."""
    return [
        _read(
            found["kind"].strip(),
            Template(found["command"]).substitute(values),
            json.loads(found["body"]) if found["body"] else None,
        )
        for found in _BLOCK.finditer(PAGE.read_text())
    ]


def _read(kind: str, command: str, expected: Any) -> PageCommand:
    words = iter(shlex.split(command.replace("\\\n", " ")))
    assert next(words) == "curl"
    method, data, urls, headers = "GET", None, list[str](), dict[str, str]()
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(words)
        elif word != "-N":
            urls.append(word)
    (url,) = urls
    assert url.startswith(ORIGIN), url
    return PageCommand(kind, method, url.removeprefix(ORIGIN), headers, data, expected)
