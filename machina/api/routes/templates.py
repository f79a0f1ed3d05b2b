"""Templates: install an archive or from git, list a repository, and hear that one was pushed to."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request

from machina.api import template_examples as examples
from machina.api.deps import BodyDep, ResourcesDep
from machina.api.envelopes import Answer, one
from machina.api.json_body import read_json
from machina.api.middleware import is_form
from machina.api.problems import UnsupportedMediaType
from machina.api.security import Caller, require
from machina.api.template_bodies import (
    archive_name,
    archive_of,
    read_git_request,
    read_git_requests,
    read_paths,
)
from machina.auth import Scope
from machina.errors import Invalid, Unauthenticated
from machina.resources import Resources
from machina.templates import Counts, TemplateReport, Templates

router = APIRouter(tags=["Templates"])

_MAX_FILES: Final = 4
_MAX_FIELDS: Final = 50
_MAX_FIELD_BYTES: Final = 65_536
_SHOWN_FAILURES: Final = 3

_ADMIN: Final = [Depends(require(Scope.ADMIN))]


class InstallFailed(Invalid):
    """Nothing of what was to be installed could be; `details.results` says why, entry by entry."""

    code, title = "install_failed", "Nothing installed"


async def templates_of(request: Request) -> Templates:
    """The one installer of this process."""
    templates: Templates = request.state.templates
    return templates


TemplatesDep = Annotated[Templates, Depends(templates_of)]


@router.post(
    "/templates/upload",
    summary="Install a template from a zip archive",
    responses=examples.INSTALL_ANSWERS,
    openapi_extra=examples.UPLOAD,
    dependencies=_ADMIN,
)
async def upload_template(request: Request, caller: Caller, templates: TemplatesDep) -> Answer:
    """The archive holds an `_install.yml` that lists what to install; without one, every file of a
    known kind is installed. A hostile archive is refused whole; a broken entry is reported and the
    rest installed.
    """
    if not is_form(request.headers.get("content-type")):
        raise UnsupportedMediaType("Send the archive as multipart/form-data, in the part 'file'.")
    async with request.form(
        max_files=_MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    ) as form:
        file = archive_of(form)
        reports = await templates.install_archive(caller.project, file.file, archive_name(file))
    return _installed(reports)


@router.post(
    "/templates/git",
    summary="Install templates from git repositories",
    responses=examples.INSTALL_ANSWERS,
    openapi_extra=examples.GIT,
    dependencies=_ADMIN,
)
async def install_from_git(request: Request, caller: Caller, templates: TemplatesDep) -> Answer:
    """`template` is a directory of the repository; without it all templates there are installed.
    A token (`gh_token`) is used for this request and not kept.
    """
    requests = read_git_requests(await read_json(request))
    return _installed(await templates.install_git(caller.project, requests))


@router.post(
    "/templates/directories/git",
    summary="List the templates of a git repository",
    responses=examples.DIRECTORIES_ANSWERS,
    openapi_extra=examples.DIRECTORIES,
    dependencies=_ADMIN,
)
async def list_directories(body: BodyDep, templates: TemplatesDep) -> Answer:
    """Every directory with an `_install.yml`, with the files it lists. Installs nothing."""
    directories = await templates.list_git(read_git_request(body))
    return one({"directories": directories})


@router.post(
    "/system/templates-pushed",
    summary="Install again what a push changed",
    responses=examples.PUSHED_ANSWERS,
    openapi_extra=examples.PUSHED | {"security": []},
)
async def templates_pushed(
    body: BodyDep,
    resources: ResourcesDep,
    templates: TemplatesDep,
    secret: Annotated[
        str | None,
        Header(alias="X-Webhook-Secret", description="The secret of MACHINA_WEBHOOK_SECRET."),
    ] = None,
) -> Answer:
    """For the repository's own automation: needs no key but the shared secret. Installs again the
    templates that came from this branch and are made of a changed file; a private repository is
    reported instead, because its token is not kept.
    """
    _check_secret(secret or body.get("secret"), resources)
    ref = body.get("ref")
    reports = await templates.install_pushed(
        ref if isinstance(ref, str) else "", read_paths(body.get("changed_paths"))
    )
    return _answer(reports)


def _check_secret(given: Any, resources: Resources) -> None:
    expected = resources.settings.webhook_secret
    if expected is None:
        raise Unauthenticated("MACHINA_WEBHOOK_SECRET is not set here, so that pushes are refused.")
    text = given if isinstance(given, str) else ""
    if not hmac.compare_digest(text.encode(), expected.get_secret_value().encode()):
        raise Unauthenticated("X-Webhook-Secret is missing or wrong.")


def _installed(reports: Sequence[TemplateReport]) -> Answer:
    """The answer to an installation.

    Raises:
        InstallFailed: nothing was written. Clients take every success for a complete one.
    """
    counts = Counts.of(reports)
    if counts.failed and not counts.written:
        reasons = [report.error for report in reports if report.error is not None]
        reasons += [r["message"] for report in reports for r in report.results if not r["status"]]
        more = f" (and {len(reasons) - _SHOWN_FAILURES} more)" * (len(reasons) > _SHOWN_FAILURES)
        raise InstallFailed(
            f"Nothing was installed. {' '.join(reasons[:_SHOWN_FAILURES])}{more}",
            details={"results": [report.as_answer() for report in reports]},
        )
    return _answer(reports)


def _answer(reports: Sequence[TemplateReport]) -> Answer:
    return Answer(
        {
            "data": {
                "message": Counts.of(reports).as_text(),
                "results": [report.as_answer() for report in reports],
            },
            "error": None,
            "status": True,
        }
    )
