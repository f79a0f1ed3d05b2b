"""The command `openapi`: the document that describes the API, the same on every machine."""

from __future__ import annotations

import functools
import json
import sys

from machina.api.app import create_app
from machina.resources import open_resources
from machina.settings import Settings


def show() -> None:
    """Prints the document as JSON; no setting changes it."""
    settings = Settings.model_construct()
    app = create_app(settings, functools.partial(open_resources, process="api"))
    json.dump(app.openapi(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
