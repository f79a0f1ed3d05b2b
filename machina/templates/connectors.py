"""Connectors as they are stored: with the text of their one implementation file.

A connector of the home-grown REST form (`scheme`, `host`, `base_path`, commands with `method` and
`path`) gets the OpenAPI document that says the same.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final

import orjson

from machina.definitions.loading import YamlInvalid, load_documents
from machina.templates.bundle import Bundle, FileMissing, FileRefused, resolve_below
from machina.templates.openapi import is_home_grown, translate

_YAML: Final = (".yml", ".yaml")


def complete(
    bundle: Bundle, path: str, connector: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The connector of the file at `path` as it is stored, and the further files it is made of.

    Raises:
        FileRefused: the implementation is missing, lies elsewhere, or is no text; a REST
            connector's is no JSON.
    """
    whole = dict(connector)
    name = whole.get("filename")
    if isinstance(name, str) and name.strip():
        file = resolve_below(posixpath.dirname(path), name.strip())
        try:
            whole["filecontent"] = _read_implementation(bundle, file, whole.get("filetype"))
        except FileMissing:
            if not ("filecontent" in whole or "apiSpec" in whole):
                raise
        else:
            return whole, [file]
    elif is_home_grown(whole):
        whole["apiSpec"] = translate(whole)
        whole.setdefault("filetype", "restapi")
    return whole, []


def _read_implementation(bundle: Bundle, file: str, filetype: object) -> str:
    text = read_text(bundle, file)
    extension = posixpath.splitext(file)[1].lower()
    if extension in _YAML:
        return orjson.dumps(_read_yaml(file, text)).decode()
    if filetype == "restapi" or extension == ".json":
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError as broken:
            raise FileRefused(
                f"{file}: is no JSON: {broken.msg}, line {broken.lineno}, column {broken.colno}."
            ) from None
    return text


def _read_yaml(file: str, text: str) -> Any:
    try:
        documents = load_documents(text.encode())
    except YamlInvalid as wrong:
        raise FileRefused(f"{file}: {wrong.message}") from None
    if len(documents) != 1:
        raise FileRefused(f"{file}: holds {len(documents)} documents instead of one.")
    return documents[0]


def read_text(bundle: Bundle, path: str) -> str:
    """The text of a file.

    Raises:
        FileRefused: missing, unreadable, or no UTF-8 text.
    """
    try:
        text = bundle.read(path).decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise FileRefused(f"{path}: byte {wrong.start} is not UTF-8; it is no text file.") from None
    if "\0" in text:
        raise FileRefused(f"{path}: holds a NUL: it is no text file.")
    return text
