"""`.env.example` and `docs/settings.md` say what the settings model says, neither more nor less."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic.fields import FieldInfo

from machina.settings import SECTIONS, Settings

ROOT = Path(__file__).parents[2]
EXAMPLE_LINE = re.compile(r"# ?([A-Z][A-Z0-9_]+)=(.*)")
TABLE_LINE = re.compile(r"\| `([A-Z0-9_]+)` \| (.+?) \| (.+) \|")
GUIDE = [
    "REDIS_URL",
    "REDIS_PUBSUB_URL",
    "MONGODB_URL",
    "GUNICORN_WORKERS",
    "MAX_CONCURRENT_STREAMS",
    "STREAM_TIMEOUT_SECONDS",
    "CIRCUIT_BREAKER_THRESHOLD",
    "LOG_LEVEL",
    "SCHEDULERS",
    "MACHINA_CLIENT_VERSION",
]


class Documented(NamedTuple):
    """One variable as a document shows it."""

    section: str
    variable: str
    value: str
    meaning: str


def plain(value: object) -> str:
    """A value as one writes it into an environment."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value == () else str(value)


def expected_example(section: str, field: FieldInfo) -> Documented:
    meaning = str(field.description)
    if field.default is None:
        assert field.examples, f"{field.validation_alias} has no default and no example"
        return Documented(
            section,
            str(field.validation_alias),
            plain(field.examples[0]),
            f"{meaning} (Example: unset by default.)",
        )
    return Documented(section, str(field.validation_alias), plain(field.default), meaning)


def expected_row(section: str, field: FieldInfo) -> Documented:
    default = "unset" if field.default is None else f"`{plain(field.default)}`"
    return Documented(
        section,
        str(field.validation_alias),
        "empty" if default == "``" else default,
        str(field.description),
    )


def read_example() -> Iterator[Documented]:
    section, comment = "", list[str]()
    for line in (ROOT / ".env.example").read_text().splitlines():
        if heading := re.fullmatch(r"# (.+?) -{5,}", line):
            section, comment = heading[1], []
        elif variable := EXAMPLE_LINE.fullmatch(line):
            yield Documented(section, variable[1], variable[2], " ".join(comment))
            comment = []
        else:
            comment = [*comment, line.removeprefix("# ")] if line else []


def read_page() -> Iterator[Documented]:
    section = ""
    for line in (ROOT / "docs" / "settings.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif row := TABLE_LINE.fullmatch(line):
            yield Documented(section, row[1], row[2], row[3])


def fields() -> Iterator[tuple[str, FieldInfo]]:
    for section in SECTIONS:
        for field in section.model_fields.values():
            yield str(section.__doc__), field


def test_the_example_file_shows_every_variable_with_its_default_and_meaning() -> None:
    assert list(read_example()) == [expected_example(*field) for field in fields()]


def test_the_settings_page_shows_every_variable_with_its_default_and_meaning() -> None:
    assert list(read_page()) == [expected_row(*field) for field in fields()]


def test_the_sections_hold_every_field_of_the_model_once() -> None:
    names = [name for section in SECTIONS for name in section.model_fields]
    assert sorted(names) == sorted(Settings.model_fields)


def test_the_guides_ten_keep_their_names_and_all_others_say_whose_they_are() -> None:
    names = [str(field.validation_alias) for _, field in fields()]
    assert names[:10] == GUIDE
    assert [name for name in names[10:] if not name.startswith(("MACHINA_", "OPENAI_"))] == []


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if "seconds" in name])
def test_a_duration_names_its_unit_at_the_end(name: str) -> None:
    assert name.endswith("_seconds")
    assert str(Settings.model_fields[name].validation_alias).endswith("_SECONDS")


def test_the_example_file_is_usable_as_it_is_and_with_every_line_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / ".env.example").read_text()
    opened = "\n".join(line.removeprefix("# ") for line in text.splitlines() if "=" in line)
    for variable in (str(field.validation_alias) for _, field in fields()):
        monkeypatch.delenv(variable, raising=False)
    for content in (text, opened):
        (tmp_path / "env").write_text(content)
        settings = Settings(_env_file=tmp_path / "env")
        assert settings.port == 5003
    assert settings.redis_url == "redis://localhost:6379/0"
