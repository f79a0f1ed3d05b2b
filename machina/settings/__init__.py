"""Every knob of the system: one model, read once by the process that starts and passed down.

The ten variables of the deployment guide keep their names; every other one begins with `MACHINA_`
or is one the ecosystem already knows, as `OPENAI_API_KEY`. Durations carry their unit in the name.
"""

from machina.settings.guide import LogLevel
from machina.settings.model import SECTIONS, Settings, variable_name
from machina.settings.place import Environment
from machina.settings.reading import load_settings, read_env_file
from machina.settings.urls import mask_password

__all__ = [
    "SECTIONS",
    "Environment",
    "LogLevel",
    "Settings",
    "load_settings",
    "mask_password",
    "read_env_file",
    "variable_name",
]
