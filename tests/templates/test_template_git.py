"""Cloning: what is installed from it, what is never run, and what no credential leaves behind."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from machina.egress.policy import EgressPolicy
from machina.errors import MachinaError, StoreDown
from machina.settings import Settings
from machina.store import Store
from machina.templates import Counts, GitRequest, Templates
from machina.templates import git as module
from machina.templates.git import Checkout, GitFailed, GitMissing, Limits, cloned
from machina.templates.records import TemplateRecords
from machina.templates.repository import Repository, pin, read_repository
from tests.templates.git_server import Served, commit, git, make_repository, serving
from tests.templates.packing import BUNDLES

TOKEN = "ghp_canarytoken"
LIMITS = Limits(seconds=20, bytes=50 * 1024 * 1024)
FILES = {
    "agent-templates/one/_install.yml": "datasets: [{path: ../../shared/flow.yml}]",
    "agent-templates/two/_install.yml": "datasets: [{path: a.yml}]",
    "agent-templates/two/a.yml": "agent: {name: a, title: first}",
    "shared/flow.yml": "workflow: {name: shared-flow}",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "served" / "repository"
    make_repository(folder, FILES)
    return folder


@pytest.fixture
def server(repository: Path) -> Iterator[Served]:
    with serving(repository.parent) as served:
        yield served


@pytest.fixture
def templates(store: Store, settings: Settings) -> Templates:
    changes = {"git_allow": ("file", "http"), "git_timeout_seconds": 20.0}
    return Templates(store, settings.model_copy(update=changes))


def local(folder: Path) -> Repository:
    return read_repository(f"file://{folder}", token=None, allowed=("file",))


def read(
    repository: Repository,
    branch: str = "",
    limits: Limits = LIMITS,
    stop: threading.Event | None = None,
) -> list[str]:
    with clone(repository, branch, limits, stop) as checkout:
        return checkout.bundle.files()


def clone(
    repository: Repository,
    branch: str = "",
    limits: Limits = LIMITS,
    stop: threading.Event | None = None,
) -> AbstractContextManager[Checkout]:
    stop = stop or threading.Event()
    return cloned(repository, branch, limits, pinned=None, stop=stop)


def test_a_clone_has_the_files_of_a_branch_and_goes_with_its_context(repository: Path) -> None:
    git(repository, "checkout", "-q", "-b", "next")
    newest = commit(repository, {"new.yml": "x"})
    git(repository, "checkout", "-q", "main")
    assert read(local(repository)) == sorted(FILES)
    with clone(local(repository), "next") as checkout:
        assert isinstance(checkout, Checkout)
        assert checkout.commit == newest
        assert checkout.bundle.read("new.yml") == b"x"
        place = checkout.bundle._root
        assert (place / ".git").is_dir()
    assert not place.parent.exists()


def test_a_branch_that_is_not_there_is_named(repository: Path) -> None:
    with pytest.raises(GitFailed, match="Remote branch nope not found"):
        read(local(repository), "nope")
    with pytest.raises(GitFailed, match="git says"):
        read(local(repository.parent / "absent"))


def test_nothing_of_a_hostile_repository_runs_or_leads_outside(
    repository: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    other = tmp_path / "served" / "other"
    make_repository(other, {"inside.yml": "x"})
    hook = f"#!/bin/sh\ntouch {canary}\n"
    (repository / "link.yml").symlink_to("/etc/passwd")
    (repository / "folder").symlink_to("/etc")
    commit(
        repository,
        {
            ".githooks/post-checkout": hook,
            ".gitattributes": "* filter=lfs diff=lfs\n*.evil filter=evil",
            "x.evil": "x",
            ".gitmodules": f'[submodule "s"]\n\tpath = s\n\turl = file://{other}\n',
        },
    )
    git(
        repository,
        "update-index",
        "--add",
        "--cacheinfo",
        f"160000,{git(other, 'rev-parse', 'HEAD')},s",
    )
    git(repository, "commit", "-q", "-m", "submodule")
    git(repository, "config", "core.hooksPath", ".githooks")
    git(repository, "tag", "v1")
    with clone(local(repository)) as checkout:
        assert checkout.bundle.read("link.yml") == b"/etc/passwd"  # a text file, no link
        assert checkout.bundle.read("folder") == b"/etc"
        assert not any(path.startswith("s/") for path in checkout.bundle.files())
        assert git(checkout.bundle._root, "tag") == ""
    assert not canary.exists()


def test_a_clone_over_its_limits_is_given_up(repository: Path) -> None:
    with pytest.raises(GitFailed, match="MACHINA_GIT_MAX_BYTES"):
        read(local(repository), limits=replace(LIMITS, bytes=1_000))
    with pytest.raises(GitFailed, match="MACHINA_GIT_TIMEOUT_SECONDS"):
        read(local(repository), limits=replace(LIMITS, seconds=0))
    stop = threading.Event()
    stop.set()
    with pytest.raises(GitFailed, match="given up"):
        read(local(repository), stop=stop)


def test_a_child_that_hangs_is_ended_with_all_it_started(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    started = tmp_path / "child"
    program.write_text(f"#!/bin/sh\nsleep 60 & echo $! > {started}\nwait\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    stop = threading.Event()
    failed: list[MachinaError] = []

    def run() -> None:
        try:
            read(local(repository), stop=stop)
        except GitFailed as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: started.exists() and bool(started.read_text().strip()))
    stop.set()
    thread.join()
    assert len(failed) == 1
    child = int(started.read_text())
    wait_for(lambda: not running(child))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_machine_without_git_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(GitMissing, match="upload an archive"):
        read(local(repository))


def test_a_redirect_is_not_followed(server: Served) -> None:
    plain = read_repository(f"{server.url}/repository", token=None, allowed=("http",))
    assert len(read(plain)) == 4
    with serving(Path("/nonexistent")) as other:
        server.redirect = other.url
        with pytest.raises(GitFailed):
            read(plain)
        assert other.authorizations == []


def test_a_token_is_in_no_argument_and_in_no_error(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Over plain HTTP, which only a test may do: the header is put together as for https.
    secure = read_repository(f"https://{server.url[7:]}/repository", token=TOKEN, allowed=())
    lists: list[list[str]] = []
    started = subprocess.Popen

    def noting(arguments: list[str], **options: Any) -> Any:
        lists.append(arguments)
        environment: dict[str, str] = options["env"]
        for key, value in environment.items():
            if key.startswith("GIT_CONFIG_KEY_"):
                environment[key] = value.replace("https://", "http://")
        return started(arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", noting)
    sent = replace(secure, url=f"{server.url}/repository", scheme="http")
    server.password = secure.authorization
    assert len(read(sent)) == 4
    assert set(server.authorizations) == {secure.authorization}
    server.password = "Basic other"
    with pytest.raises(GitFailed, match="needs a token") as failed:
        read(sent)
    assert not any(TOKEN in part for arguments in lists for part in arguments)
    assert not any(secret in failed.value.message for secret in secure.secrets)


def test_what_git_says_is_told_without_the_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nenv | grep CONFIG_VALUE >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    secret = read_repository("https://h.test/r", token=TOKEN, allowed=())
    with pytest.raises(GitFailed) as failed:
        read(secret)
    assert "***" in failed.value.message
    assert not any(form in failed.value.message for form in secret.secrets)
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(GitFailed, match="git says: nothing"):
        read(secret)


def test_the_child_knows_where_it_may_connect_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHINA_CANARY", "secret")
    secret = read_repository("https://h.test:8443/r", token=TOKEN, allowed=())
    environment = module._environment(secret, "/home", "h.test:8443:93.184.216.34")
    values = {
        environment[f"GIT_CONFIG_KEY_{n}"]: environment[f"GIT_CONFIG_VALUE_{n}"]
        for n in range(int(environment["GIT_CONFIG_COUNT"]))
    }
    assert values["http.curloptResolve"] == "h.test:8443:93.184.216.34"
    assert values["http.https://h.test:8443/.extraHeader"].startswith("Authorization: Basic ")
    assert values["protocol.allow"] == "never"
    assert values["http.followRedirects"] == "false"
    assert environment["GIT_ALLOW_PROTOCOL"] == "https"
    assert environment["GIT_TERMINAL_PROMPT"] == "0"
    assert "MACHINA_CANARY" not in environment
    six = read_repository("https://[2606:4700::1]/r", token=TOKEN, allowed=())
    assert module._netloc(six) == "[2606:4700::1]"


async def test_templates_install_from_git_and_one_failure_holds_up_no_other(
    store: Store, templates: Templates, repository: Path
) -> None:
    url = f"file://{repository}"
    reports = await templates.install_git(
        "default",
        [
            GitRequest(url, "main", "agent-templates/one"),
            GitRequest(url, "main", "agent-templates/none"),
            GitRequest(url, "main", "agent-templates/two"),
            GitRequest(f"{url}-absent"),
            GitRequest("ext::sh", template="x"),
        ],
    )
    assert [report.error is None for report in reports] == [True, False, True, False, False]
    assert [report.code for report in reports if report.error] == [
        "template_missing",
        "git_failed",
        "git_refused",
    ]
    assert Counts.of(reports) == Counts(saved=2, failed=3)
    records = await TemplateRecords(store).find({})
    assert [(r["place"], r["directory"], r["branch"]) for r in records] == [
        (url, "agent-templates/one", "main"),
        (url, "agent-templates/two", "main"),
    ]
    assert records[0]["files"] == ["agent-templates/one/_install.yml", "shared/flow.yml"]
    assert records[0]["commit"] == git(repository, "rev-parse", "HEAD")


async def test_the_templates_of_a_repository_are_listed(
    templates: Templates, repository: Path
) -> None:
    rows = await templates.list_git(GitRequest(f"file://{repository}"))
    assert [row["path"] for row in rows] == ["agent-templates/one", "agent-templates/two"]


async def test_a_push_installs_again_what_it_changed_and_nothing_else(
    store: Store, templates: Templates, repository: Path
) -> None:
    url = f"file://{repository}"
    for project in ("default", "other"):
        await templates.install_git(project, [GitRequest(url, "main")])
    commit(repository, {"agent-templates/two/a.yml": "agent: {name: a, title: second}"})
    changed = ["agent-templates/two/a.yml", "README.md"]
    for ref, paths, count in [
        ("refs/heads/other", changed, 0),
        ("refs/heads/main", ["README.md"], 0),
        ("refs/heads/main", changed, 2),
        ("refs/heads/main", ["shared/flow.yml"], 2),
        ("", [], 4),
    ]:
        reports = await templates.install_pushed(ref, paths)
        assert len(reports) == count, (ref, paths)
        assert all(report.is_complete for report in reports)
    for project in ("default", "other"):
        found = await store.definitions.get(project, "agent", "a")
        assert found is not None
        assert found["title"] == "second"


async def test_a_push_to_a_private_repository_is_reported(
    templates: Templates, repository: Path
) -> None:
    request = GitRequest(f"file://{repository}", "", "agent-templates/one", private=True)
    await templates.install_git("default", [request])
    (report,) = await templates.install_pushed("refs/heads/main", [])
    assert report.code == "token_missing"


async def test_a_store_that_is_away_ends_the_installation(
    templates: Templates, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*arguments: object) -> None:
        raise StoreDown

    monkeypatch.setattr(templates, "_fetch", away)
    with pytest.raises(StoreDown):
        await templates.install_git("default", [GitRequest("https://h.test/r")])


async def test_the_whole_repository_of_samples_installs_from_git(
    templates: Templates, tmp_path: Path
) -> None:
    folder = tmp_path / "all"
    files = {
        path.relative_to(BUNDLES).as_posix(): path
        for path in BUNDLES.rglob("*")
        if path.is_file() and path.name != "latin.yml"
    }
    make_repository(folder, {name: path.read_text() for name, path in files.items()})
    reports = await templates.install_git("default", [GitRequest(f"file://{folder}")])
    assert len(reports) == 11


def test_the_address_of_a_local_server_is_checked_like_any_other(server: Served) -> None:
    plain = read_repository(f"{server.url}/repository", token=None, allowed=("http",))
    with pytest.raises(MachinaError, match="loopback"):
        pin(plain, EgressPolicy.of())
