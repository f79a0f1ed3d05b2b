"""What the gauges of an API process show."""

from __future__ import annotations

from functools import partial

from machina.admission import Admission
from machina.api.open_streams import OpenStreams
from machina.breaker import SharedBreaker, State
from machina.observability.sampling import Readings
from machina.resources import Resources


def api_readings(resources: Resources, admission: Admission, streams: OpenStreams) -> Readings:
    """The readings of one API process."""
    shown, breaker, gate = resources.metrics.streams, admission.breaker, admission.gate
    return {
        **resources.readings("api"),
        shown.open: lambda: len(streams),
        shown.viewers: lambda: admission.viewers,
        shown.permits: lambda: gate.capacity,
        shown.permits_in_use: lambda: gate.active,
        **{shown.breaker.labels(breaker.name, s): partial(_stands, breaker, s) for s in State},
    }


def _stands(breaker: SharedBreaker, state: State) -> bool:
    return breaker.snapshot().state is state
