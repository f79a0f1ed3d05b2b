"""Routes and what they depend on are coroutines: FastAPI runs a plain function in a thread of its
pool, once for every request.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from machina.api.app import create_app
from machina.api.json_body import read_object
from machina.api.routes.templates import upload_template
from machina.resources import open_resources
from machina.settings import Settings
from tests.api.harness import routes_of


def calls_of(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    """What a route calls, and what that depends on."""
    if dependant.call is not None:
        yield dependant.call
    for needed in dependant.dependencies:
        yield from calls_of(needed)


def test_no_route_calls_a_plain_function() -> None:
    app = create_app(Settings(), partial(open_resources, process="api"))
    calls = {
        call: route.path
        for route in routes_of(app.routes)
        if isinstance(route, APIRoute)
        for call in calls_of(route.dependant)
    }
    assert {read_object, upload_template} <= calls.keys()
    plain = {path: call for call, path in calls.items() if not inspect.iscoroutinefunction(call)}
    assert plain == {}
