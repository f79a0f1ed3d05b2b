"""Multipart bodies: what is uploaded, and that nothing outside the run's directory can be."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any, cast

import pytest

from machina.connectors.rest import bodies
from machina.connectors.rest.bodies import encode_body
from machina.errors import ConnectorFailed
from tests.connectors.test_rest_calls import Shop
from tests.egress.server import Seen, Server


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    directory = tmp_path / "run"
    directory.mkdir()
    async with Server() as server:
        shop = Shop(server, directory)
        shop.path("/upload", "post", body=["multipart/form-data"])
        yield shop
        await shop.client.aclose()


def parts_of(seen: Seen) -> list[tuple[str, str | None, str, bytes]]:
    """Name, file name, type and content of each part."""
    head = f"Content-Type: {seen.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(_class=EmailMessage, policy=default).parsebytes(head + seen.body)
    assert message.is_multipart()
    return [
        (
            str(part.get_param("name", header="content-disposition")),
            part.get_filename(),
            part.get_content_type(),
            cast(bytes, part.get_payload(decode=True)),
        )
        for part in message.iter_parts()
    ]


async def upload(shop: Shop, value: Any) -> list[tuple[str, str | None, str, bytes]]:
    return parts_of(await shop.sent("post-upload", {"body": {"file": value}}))


async def test_fields_and_files_are_parts(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "run" / "out").mkdir()
    (tmp_path / "run" / "out" / "a.png").write_bytes(b"\x89PNG\r\n--x")
    (tmp_path / "run" / "b").write_bytes(b"")
    body = {
        "file": f"@{tmp_path}/run/out/a.png",
        "more": ["@b", "text"],
        "n": 5,
        "none": None,
        "o": {"k": True},
    }

    seen = await shop.sent("post-upload", {"body": body})

    assert parts_of(seen) == [
        ("file", "a.png", "image/png", b"\x89PNG\r\n--x"),
        ("more", "b", "application/octet-stream", b""),
        ("more", None, "text/plain", b"text"),
        ("n", None, "text/plain", b"5"),
        ("o", None, "text/plain", b'{"k":true}'),
    ]


async def test_a_path_in_the_temporary_directory_of_a_script_is_one_of_the_run(
    shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "run" / "speech.mp3").write_bytes(b"ID3")

    [(_, name, kind, content)] = await upload(shop, "@/tmp/speech.mp3")

    assert (name, kind, content) == ("speech.mp3", "audio/mpeg", b"ID3")


async def test_names_cannot_write_headers(shop: Shop, tmp_path: Path) -> None:
    name = 'a"\r\nX-Evil: 1.txt'
    (tmp_path / "run" / name).write_bytes(b"x")

    seen = await shop.sent("post-upload", {"body": {'f"\r\nX: 1': f"@{name}"}})

    assert b"\r\nX" not in seen.body
    assert len(parts_of(seen)) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../secret",
        "sub/../../secret",
        "/tmp/../etc/passwd",
        "link",
        "linked/secret",
        "nothing",
        "sub",
        "pipe",
        "",
        ".",
        "/",
        "a\0b",
        "~/secret",
        "person@example.test",
    ],
)
async def test_nothing_else_can_be_uploaded(shop: Shop, tmp_path: Path, path: str) -> None:
    run = tmp_path / "run"
    (tmp_path / "secret").write_text("canary")
    (run / "sub").mkdir()
    (run / "link").symlink_to(tmp_path / "secret")
    (run / "linked").symlink_to(tmp_path)
    os.mkfifo(run / "pipe")

    with pytest.raises(ConnectorFailed, match="cannot be sent"):
        await upload(shop, f"@{path}")
    with pytest.raises(ConnectorFailed, match="cannot be sent"):
        await upload(shop, f"@{tmp_path}/{path.lstrip('/')}")
    assert shop.server.connections == 0


async def test_files_are_bounded_in_all(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_UPLOAD", 10)
    (tmp_path / "run" / "six").write_bytes(b"123456")

    assert await upload(shop, "@six")
    with pytest.raises(ConnectorFailed, match="larger than"):
        await upload(shop, ["@six", "@six"])


async def test_a_server_that_keeps_no_files_uploads_none() -> None:
    with pytest.raises(ConnectorFailed, match="keeps no files"):
        await encode_body({"f": "@x"}, ["multipart/form-data"], None, "the call")


async def test_an_at_sign_means_nothing_in_other_bodies(shop: Shop) -> None:
    shop.path("/j", "post", body=["application/json"])

    assert (await shop.sent("post-j", {"body": {"f": "@/etc/passwd"}})).json == {
        "f": "@/etc/passwd"
    }
