"""Reads the settings of a process and words what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from machina.errors import SettingsInvalid
from machina.settings.model import Settings, variable_name
from machina.settings.urls import mask_password


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process: its env file, above it the environment, above it `overrides`.

    Args:
        overrides: Fields by name, as a command line gives them; None means "not given".

    Raises:
        SettingsInvalid: one message that names each variable, its value and the remedy.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    read_env_file()  # only to refuse it in our own words
    try:
        return Settings(_env_file=_env_file(), **given)
    except ValidationError as invalid:
        raise SettingsInvalid(_explain(invalid)) from None


def read_env_file() -> dict[str, str]:
    """The variables of the env file; they count where the environment has none. It need not exist.

    Raises:
        SettingsInvalid: it cannot be read.
    """
    path = _env_file()
    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except (OSError, UnicodeDecodeError) as unreadable:
        raise SettingsInvalid(
            f"{variable_name('env_file')}={path}: cannot be read ({unreadable}); "
            "make it a readable text file or name another."
        ) from None


def _env_file() -> Path:
    default: Path = Settings.model_fields["env_file"].default
    return Path(os.environ.get(variable_name("env_file")) or default)


def _explain(invalid: ValidationError) -> str:
    wrong = []
    for error in invalid.errors(include_url=False, include_context=False):
        place = str(error["loc"][0])
        name = variable_name(place) if place in Settings.model_fields else place
        shown = mask_password(str(error["input"]))
        wrong.append(f"  {name}={shown}: {error['msg'].removeprefix('Value error, ')}")
    return "\n".join(
        (
            "Settings are not usable:",
            *sorted(wrong),
            "Set the variable to a valid value or unset it; docs/settings.md lists them all.",
        )
    )
