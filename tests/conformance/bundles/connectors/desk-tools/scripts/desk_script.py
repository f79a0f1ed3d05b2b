import re
from dataclasses import dataclass
from datetime import date
from typing import Any

WORDS = 6
Request = dict[str, Any]


@dataclass
class Slug:
    text: str

    def render(self) -> str:
        return "-".join(_words(self.text)[:WORDS])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def make_slug(request_data: Request) -> Request:
    params = request_data.get("params") or request_data.get("inputs") or {}
    headers = request_data.get("headers", {})
    text = params.get("text")
    if not text:
        return {"status": False, "message": "text is required"}
    slug = Slug(text).render()
    return {
        "status": True,
        "data": {"slug": slug, "site": headers.get("site"), "words": len(_words(text))},
        "message": "Slug made",
    }


def parse_day(params: Request) -> Request:
    day = params.get("params", {}).get("day", "")
    try:
        return {"status": True, "data": date.fromisoformat(day).strftime("%A")}
    except ValueError as e:
        return {"status": "error", "error": {"code": "bad_day", "message": str(e)}}


def forward(request_data: Request, *args: Any, **kwargs: Any) -> Request:
    answer = {"status": True, "data": {"games": [{"id": "g1"}]}}
    return {"status": True, "data": answer}
