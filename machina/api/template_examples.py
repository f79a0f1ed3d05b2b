"""What the documentation shows of the routes of templates."""

from __future__ import annotations

from typing import Any, Final

from machina import errors
from machina.api.examples import Responses, answer, refusals
from machina.api.problems import UnsupportedMediaType
from machina.templates import InstallBusy

GIT_BODY: Final = [
    {
        "repo_url": "https://github.com/example/templates",
        "repo_branch": "main",
        "template": "agent-templates/weather",
        "private_repository": False,
    }
]
DIRECTORIES_BODY: Final = {
    "repo_url": "https://github.com/example/templates",
    "branch": "main",
    "private_repository": False,
}
PUSHED_BODY: Final = {
    "ref": "refs/heads/main",
    "commit": "5f3c1e0d9b8a7f6e5d4c3b2a1f0e9d8c7b6a5f4e",
    "changed_paths": ["agent-templates/weather/workflows/forecast.yml"],
}
UPLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "A zip."}
                    },
                },
                "example": {"file": "(the bytes of weather.zip)"},
            }
        },
    }
}


def json_body(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads JSON of this form."""
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"content": content}}


_ITEM: Final = {"type": "object", "additionalProperties": True}
GIT: Final = json_body({"oneOf": [{"type": "array", "items": _ITEM}, _ITEM]}, GIT_BODY)
DIRECTORIES: Final = json_body(_ITEM, DIRECTORIES_BODY)
PUSHED: Final = json_body(_ITEM, PUSHED_BODY)


_RESULTS: Final = {
    "data": {
        "message": "2 saved, 1 updated, 1 failed",
        "results": [
            {
                "data": {
                    "template": "agent-templates/weather",
                    "results": [
                        {
                            "data": {"id": "692431c2a1b2c3d4e5000000"},
                            "message": "agent saved",
                            "status": True,
                        },
                        {"message": "workflow updated", "status": True},
                        [
                            {
                                "data": {"id": "692431c2a1b2c3d4e5000001"},
                                "message": "prompt saved",
                                "status": True,
                            }
                        ],
                        {
                            "data": {},
                            "error": {
                                "id": "template_file_missing",
                                "message": "agent-templates/weather/x.yml: no such file in the "
                                "template's repository.",
                            },
                            "message": "agent-templates/weather/x.yml: no such file in the "
                            "template's repository.",
                            "path": "x.yml",
                            "status": False,
                        },
                    ],
                },
                "status": False,
            }
        ],
    },
    "error": None,
    "status": True,
}
_KEY: Final = (errors.Unauthenticated, errors.Forbidden)
_REST: Final = (errors.TooLarge, errors.Invalid, UnsupportedMediaType, errors.StoreDown)

INSTALL_ANSWERS: Final[Responses] = {
    200: answer("What became of every entry, in the listed order.", _RESULTS),
    **refusals(*_KEY, *_REST, InstallBusy),
}
DIRECTORIES_ANSWERS: Final[Responses] = {
    200: answer(
        "The templates by path.",
        {
            "data": {
                "directories": [
                    {
                        "path": "agent-templates/weather",
                        "datasets": [{"type": "agent", "path": "agents/weather.yml"}],
                        "title": "Weather",
                    }
                ]
            },
            "status": True,
        },
    ),
    **refusals(*_KEY, *_REST, InstallBusy),
}
PUSHED_ANSWERS: Final[Responses] = {
    200: answer("What was installed again.", _RESULTS),
    **refusals(errors.Unauthenticated, *_REST, InstallBusy),
}
