"""Archives: ordinary ones are read, hostile ones refused whole, whatever else they hold."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable

import pytest

from machina.errors import MachinaError, TooLarge
from machina.templates.archive import MAX_ENTRIES, ArchiveRefused, read_archive
from machina.templates.bundle import MAX_FILE_BYTES, FileMissing, FileRefused
from tests.templates.packing import BUNDLES, entry, zipped, zipped_folder

MAX = 50 * 1024 * 1024
GOOD = {"_install.yml": "datasets: []\n"}


def refusal(data: bytes, max_bytes: int = MAX) -> str:
    with pytest.raises(MachinaError) as refused:
        read_archive(io.BytesIO(data), max_bytes)
    assert isinstance(refused.value, ArchiveRefused | TooLarge)
    return refused.value.message


def packed(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    """A good file and these entries."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_install.yml", "datasets: []\n")
        for info, content in entries:
            archive.writestr(info, content)
    return target.getvalue()


def test_an_archive_as_clients_pack_it_is_read() -> None:
    folder = BUNDLES / "agent-templates" / "weather"
    bundle = read_archive(io.BytesIO(zipped_folder(folder)), MAX)
    assert len(bundle.files()) == 15
    assert bundle.read("_install.yml") == (folder / "_install.yml").read_bytes()


def test_folders_hidden_files_and_a_leading_dot_do_no_harm() -> None:
    data = packed(
        (entry("./"), b""),
        (entry("./a/", mode=stat.S_IFDIR | 0o755), b""),
        (entry("./a/b.yml"), b"x"),
        (entry(".git/config"), b"x"),
        (entry("__MACOSX/b.yml"), b"x"),
        (entry("a/plain.yml", mode=0), b"x"),
        (entry("nested.zip"), zipped(GOOD)),
    )
    bundle = read_archive(io.BytesIO(b"prefix" + data), MAX)
    assert bundle.files() == ["_install.yml", "a/b.yml", "a/plain.yml", "nested.zip"]
    with pytest.raises(FileMissing, match="no such file"):
        bundle.read("absent.yml")


def test_a_file_that_no_record_could_hold_is_not_read() -> None:
    bundle = read_archive(
        io.BytesIO(zipped({"a": bytes(MAX_FILE_BYTES + 1)}, zipfile.ZIP_STORED)), MAX
    )
    with pytest.raises(FileRefused, match="larger than"):
        bundle.read("a")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.yml",
        "a/../../evil.yml",
        "a/./b.yml",
        "..",
        ".",
        "/etc/passwd",
        "//server/share",
        "a//b.yml",
        "C:/evil.yml",
        "C:evil.yml",
        "c:\\evil.yml",
        "..\\evil.yml",
        "a\\b.yml",
        "a\nb.yml",
        "a\x1b[2J.yml",
        "a\u202eb.yml",
        "n" * 256,
        "/".join(["n" * 100] * 6),
        "é" * 200,
        "n" * 4_096,
    ],
)
def test_an_archive_with_a_hostile_path_is_refused(name: str) -> None:
    assert "path" in refusal(packed((entry(name), b"evil")))


def test_an_archive_with_a_nul_in_a_path_is_refused() -> None:
    data = packed((entry("good.ymlXevil"), b"x")).replace(b"good.ymlX", b"good.yml\0")
    assert "not allowed" in refusal(data)


@pytest.mark.parametrize(
    "type", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK]
)
def test_an_archive_with_a_link_or_a_device_is_refused(type: int) -> None:
    assert "link or a device" in refusal(packed((entry("x", mode=type | 0o777), b"/etc/passwd")))


@pytest.mark.parametrize(
    "names",
    [
        ("a.yml", "A.YML"),
        ("straße.yml", "STRASSE.yml"),
        ("é.yml", "e\u0301.yml"),
        ("ﬁ.yml", "fi.yml"),
        ("x/", "x"),
        ("a.yml", "./a.yml"),
    ],
)
def test_an_archive_with_one_file_in_two_spellings_is_refused(names: tuple[str, str]) -> None:
    assert "twice" in refusal(packed(*((entry(name), b"x") for name in names)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_one_name_twice_is_refused() -> None:
    assert "twice" in refusal(packed((entry("_install.yml"), b"other")))


def test_an_archive_with_a_file_that_is_a_folder_too_is_refused() -> None:
    assert "below a file" in refusal(packed((entry("A"), b"x"), (entry("a/b.yml"), b"x")))


def test_an_encrypted_archive_is_refused() -> None:
    data = bytearray(zipped(GOOD))
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_packed_by_a_denser_method_is_refused(method: int) -> None:
    assert "other than deflate" in refusal(zipped(GOOD, method))


def test_an_archive_that_unpacks_to_much_more_than_its_size_is_refused() -> None:
    assert "100 times" in refusal(zipped({"zeros": bytes(10 * 1024 * 1024)}))
    small = read_archive(io.BytesIO(zipped({"blank.yml": b" " * 60_000})), MAX)
    assert len(small.read("blank.yml")) == 60_000


def test_an_archive_over_the_limit_is_refused_by_its_own_word() -> None:
    data = zipped({"a": b"ab" * 600, "b": b"cd" * 600}, zipfile.ZIP_STORED)
    assert refusal(data, max_bytes=2_000) == "The archive unpacks to more than 2000 bytes."
    assert len(read_archive(io.BytesIO(data), 2_400).files()) == 2


def test_an_archive_with_too_many_entries_is_refused() -> None:
    data = zipped({f"f{n}": b"" for n in range(MAX_ENTRIES + 1)}, zipfile.ZIP_STORED)
    assert f"more than {MAX_ENTRIES} entries" in refusal(data)
    lying = bytearray(data)
    lying[-14:-10] = struct.pack("<2H", 1, 1)  # the last record says that there is one
    assert f"more than {MAX_ENTRIES} entries" in refusal(bytes(lying))


def test_a_directory_too_large_to_be_read_is_refused_before_it_is() -> None:
    data = bytearray(zipped(GOOD))
    data[-10:-6] = struct.pack("<L", 100 * 1024 * 1024)
    assert "entries" in refusal(bytes(data))


def test_an_archive_of_the_zip64_form_is_refused() -> None:
    data = zipped(GOOD)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    assert "zip64" in refusal(data[:-22] + locator + data[-22:])


def test_entries_that_share_their_bytes_are_refused() -> None:
    data = bytearray(zipped({"a.yml": b"x" * 500, "b.yml": b"y" * 500}, zipfile.ZIP_STORED))
    first = data.find(b"PK\x01\x02")
    second = data.find(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    assert "overlap" in refusal(bytes(data))


def test_an_entry_that_lies_about_its_size_is_refused() -> None:
    data = bytearray(zipped({"a.yml": b"x" * 50_000}))
    place = data.find(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<L", 10)
    assert "broken" in refusal(bytes(data))


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _wrong_data(data: bytes) -> bytes:
    place = data.find(b"datasets")
    return data[:place] + b"DATASETS" + data[place + 8 :]


def _wrong_block(data: bytes) -> bytes:
    return data[:42] + b"\xff" * 4 + data[46:]


def _wrong_offset(data: bytes) -> bytes:
    place = data.find(b"PK\x01\x02") + 42
    return data[:place] + struct.pack("<L", 5) + data[place + 4 :]


def _wrong_local_name(data: bytes) -> bytes:
    return data[:30] + b"x" + data[31:]


@pytest.mark.parametrize("damage", [_cut, _wrong_data, _wrong_offset, _wrong_local_name])
def test_a_damaged_archive_is_refused(damage: Callable[[bytes], bytes]) -> None:
    refusal(damage(zipped(GOOD, zipfile.ZIP_STORED)))


def test_an_archive_whose_packed_bytes_are_damaged_is_refused() -> None:
    assert "broken" in refusal(_wrong_block(zipped(GOOD)))


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive at all", b"PK\x05\x06", bytes(100)])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    assert refusal(data) == "The file is no zip archive."


def test_an_archive_with_a_comment_is_read() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.yml", "x")
        archive.comment = b"made by hand"
    assert read_archive(target, MAX).files() == ["a.yml"]
