"""Reads the settings of a process and words what is wrong with them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from machina.errors import SettingsInvalid
from machina.settings.model import Settings, variable_name

_PASSWORD: Final = re.compile(r"(//[^/@:]*:).*@")


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process: its env file, above it the environment, above it `overrides`.

    Args:
        overrides: Fields by name, as a command line gives them; None means "not given".

    Raises:
        SettingsInvalid: one message that names each variable, its value and the remedy.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    env_file = env_file_path()
    try:
        return Settings(_env_file=env_file, **given)
    except ValidationError as invalid:
        raise SettingsInvalid(_explain(invalid)) from None
    except (OSError, UnicodeDecodeError) as unreadable:
        raise SettingsInvalid(
            f"{variable_name('env_file')}={env_file}: cannot be read ({unreadable}); "
            "make it a readable text file or name another."
        ) from None


def env_file_path() -> Path:
    """The file whose variables count where the environment has none; it need not exist."""
    default: Path = Settings.model_fields["env_file"].default
    return Path(os.environ.get(variable_name("env_file")) or default)


def _explain(invalid: ValidationError) -> str:
    lines = ["Settings are not usable:"]
    for error in invalid.errors(include_url=False, include_context=False):
        place = str(error["loc"][0])
        name = variable_name(place) if place in Settings.model_fields else place
        shown = _PASSWORD.sub(r"\1***@", str(error["input"]))
        lines.append(f"  {name}={shown}: {error['msg'].removeprefix('Value error, ')}")
    lines.append("Set the variable to a valid value or unset it; docs/settings.md lists them all.")
    return "\n".join(lines)
