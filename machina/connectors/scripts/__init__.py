"""Connector scripts: Python of templates, run in processes that are shut in."""

from machina.connectors.scripts.connector import ScriptConnector, ScriptsOff, open_scripts

__all__ = ["ScriptConnector", "ScriptsOff", "open_scripts"]
