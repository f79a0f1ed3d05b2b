"""The command line of `templates`: names and options only, so that it loads with every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

templates_app = typer.Typer(
    help="Install and list templates. Reads MONGODB_URL or MACHINA_DATA_DIR, MACHINA_GIT_ALLOW, "
    "MACHINA_GIT_TOKEN.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Source = Annotated[
    str, typer.Argument(help="A folder, a zip archive, or the https:// URL of a git repository.")
]
Branch = Annotated[str, typer.Option(help="Branch or tag of the repository; its default if empty.")]
Template = Annotated[
    str, typer.Option(help="Directory of the template in the source; all there are if empty.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API answers.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Use the embedded store of this directory (MACHINA_DATA_DIR).")
]


@templates_app.command("install")
def install_templates(
    source: Source,
    branch: Branch = "",
    template: Template = "",
    project: Annotated[str, typer.Option(help="Project to install into.")] = "default",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Install templates; what has the name of something installed takes its place.

    Prints what became of each thing and exits 1 if anything failed. The server may be running.
    """
    from machina.cli.templates import Wanted, install

    install(Wanted(source, branch, template, project, as_json), data_dir=data_dir)


@templates_app.command("list")
def list_templates(source: Source, branch: Branch = "", as_json: AsJson = False) -> None:
    """List the templates of a source, by their directories. Needs no store."""
    from machina.cli.templates import Wanted, show

    show(Wanted(source, branch, as_json=as_json))
