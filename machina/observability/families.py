"""Makes metrics in one registry, and remembers what each is for the page that explains them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Words = tuple[str, ...]
"""All values that a label takes: each combination is there from the start, so that alerts and
rates see a zero instead of nothing."""
OPEN: Final[Words] = ()
"""The values of a label that only the running process knows: bounded, but not listed here."""


class Family(NamedTuple):
    """What the page says of one metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Families:
    """Makes the metrics of one process. Gauges are sums over the processes that live."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.made: list[Family] = []

    def counter(self, name: str, meaning: str, **labels: Words) -> Counter:
        """A number that only rises, over restarts of a supervised process too."""
        made = Counter(name, meaning, tuple(labels), registry=self.registry)
        self._note(made, Family(name, "counter", tuple(labels), meaning), labels)
        return made

    def gauge(self, name: str, meaning: str, **labels: Words) -> Gauge:
        """A number as it is now; what a process last said of itself ends with it."""
        made = Gauge(
            name, meaning, tuple(labels), registry=self.registry, multiprocess_mode="livesum"
        )
        self._note(made, Family(name, "gauge", tuple(labels), meaning), labels)
        return made

    def histogram(
        self, name: str, meaning: str, buckets: Sequence[float], **labels: Words
    ) -> Histogram:
        """How observations are spread; `buckets` are upper bounds in the unit of the name."""
        made = Histogram(name, meaning, tuple(labels), registry=self.registry, buckets=buckets)
        self._note(made, Family(name, "histogram", tuple(labels), meaning), labels)
        return made

    def _note(
        self, made: Counter | Gauge | Histogram, family: Family, labels: dict[str, Words]
    ) -> None:
        self.made.append(family)
        if labels and OPEN not in labels.values():
            for values in itertools.product(*labels.values()):
                made.labels(*values)
