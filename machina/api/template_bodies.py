"""The bodies that existing clients send to install templates, read into requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.datastructures import FormData, UploadFile

from machina.errors import Invalid
from machina.templates import GitRequest

MAX_REQUESTS: Final = 100
_URLS: Final = ("repo_url", "repository_url", "url")
_BRANCHES: Final = ("repo_branch", "branch")
_TEMPLATES: Final = ("template", "path")
_TOKENS: Final = ("gh_token", "token")
_MAX_NAME: Final = 200


def read_git_requests(body: Any) -> list[GitRequest]:
    """The templates that a body names: a list of them, that list under `repositories`, or one.

    Raises:
        Invalid: it names none, or one without a URL.
    """
    if isinstance(body, Mapping):
        listed = body.get("repositories")
        body = listed if listed is not None else [body]
    if not isinstance(body, list) or not 1 <= len(body) <= MAX_REQUESTS:
        raise Invalid(
            f"Send a list of 1 to {MAX_REQUESTS} repositories, each as "
            '{"repo_url": …, "repo_branch": …, "template": …}.',
            field="repositories",
        )
    return [read_git_request(item) for item in body]


def read_git_request(item: Any) -> GitRequest:
    """One repository, with either spelling of its branch.

    Raises:
        Invalid: it has no URL, or a key that is read has the wrong type.
    """
    if not isinstance(item, Mapping):
        raise Invalid("A repository is an object with 'repo_url'.", field="repositories")
    url = _text(item, _URLS)
    if not url:
        raise Invalid("'repo_url' is missing; give the repository's https:// URL.", field=_URLS[0])
    return GitRequest(
        url=url,
        branch=_text(item, _BRANCHES),
        template=_text(item, _TEMPLATES),
        token=_text(item, _TOKENS) or None,
        private=item.get("private_repository") in (True, "true", 1),
    )


def read_paths(value: Any) -> list[str]:
    """A list of paths; anything else in it, or instead of it, is left out."""
    return [path for path in value if isinstance(path, str)] if isinstance(value, list) else []


def archive_of(form: FormData) -> UploadFile:
    """The uploaded archive: the part `file`, else the first part that is a file.

    Raises:
        Invalid: there is none.
    """
    parts = [form.get("file"), *(value for _, value in form.multi_items())]
    for part in parts:
        if isinstance(part, UploadFile):
            return part
    raise Invalid("The form has no file; send a zip archive as the part 'file'.", field="file")


def archive_name(file: UploadFile) -> str:
    """What the archive is called in the record of the installation."""
    name = (file.filename or "").rpartition("/")[2].rpartition("\\")[2]
    return name if name and name.isprintable() and len(name) <= _MAX_NAME else "upload.zip"


def _text(item: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        value = item.get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise Invalid(f"'{key}' must be text.", field=key)
        return value.strip()
    return ""
