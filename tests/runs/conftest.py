"""The deployment of one test: an API and a worker process on a store and Redis of its own."""

from tests.fleet import api, settings, worker

__all__ = ["api", "settings", "worker"]
