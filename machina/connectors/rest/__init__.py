"""REST APIs: connectors of the type `restapi`, and the built-in `http`."""

from machina.connectors.rest.connector import RestConnector, RunDirectory
from machina.connectors.rest.http import HttpConnector

__all__ = ["HttpConnector", "RestConnector", "RunDirectory"]
