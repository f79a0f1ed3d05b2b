"""The model of all settings: its sections are its table of contents."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel
from pydantic_settings import BaseSettings, SettingsConfigDict

from machina.settings.documents import DocumentSettings
from machina.settings.egress import EgressSettings
from machina.settings.guide import GuideSettings
from machina.settings.models import ModelSettings
from machina.settings.place import PlaceSettings
from machina.settings.runs import LogSettings, RunSettings
from machina.settings.scheduler import SchedulerSettings
from machina.settings.scripts import ScriptSettings
from machina.settings.streams import StreamSettings
from machina.settings.templates import TemplateSettings
from machina.settings.vault import VaultSettings
from machina.settings.workers import WorkerSettings


class Settings(
    GuideSettings,
    PlaceSettings,
    StreamSettings,
    WorkerSettings,
    RunSettings,
    LogSettings,
    ModelSettings,
    DocumentSettings,
    EgressSettings,
    ScriptSettings,
    VaultSettings,
    SchedulerSettings,
    TemplateSettings,
    BaseSettings,
):
    """What a process needs to know. Build it with `load_settings`, which words the errors."""

    model_config = SettingsConfigDict(
        extra="ignore", populate_by_name=True, frozen=True, env_ignore_empty=True
    )


SECTIONS: Final[tuple[type[BaseModel], ...]] = (
    GuideSettings,
    PlaceSettings,
    StreamSettings,
    WorkerSettings,
    RunSettings,
    LogSettings,
    ModelSettings,
    DocumentSettings,
    EgressSettings,
    ScriptSettings,
    VaultSettings,
    SchedulerSettings,
    TemplateSettings,
)
"""The sections in the order of the documentation; the docstring of each is its heading."""


def variable_name(field: str) -> str:
    """The environment variable of a settings field."""
    return str(Settings.model_fields[field].validation_alias)
