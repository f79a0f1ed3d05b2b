"""Python's collector of cycles, told what kind of process this is."""

from __future__ import annotations

import gc
from typing import Final

NEW_OBJECTS: Final = 20_000
"""How many more objects are made than freed before the collector looks (Python's own: 700)."""
YOUNGER_LOOKS: Final = 20
"""How often a generation is looked at before the next older one is (Python's own: 10)."""


def calm_collector() -> None:
    """For a server that has loaded what it needs and makes many small objects from now on.

    Events are tuples that no cycle holds; by Python's own figures they set off looks that took a
    fifth of the API's time under load, and pauses that every open stream felt. What is loaded by
    now stays for good and is never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, YOUNGER_LOOKS, YOUNGER_LOOKS)
