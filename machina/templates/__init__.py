"""Templates: bundles of definitions, installed from a folder, a zip archive or a git repository."""

from machina.templates.installing import InstallBusy, Templates
from machina.templates.report import Counts, EntryReport, TemplateReport
from machina.templates.sources import GitRequest

__all__ = [
    "Counts",
    "EntryReport",
    "GitRequest",
    "InstallBusy",
    "TemplateReport",
    "Templates",
]
