"""Clones a repository with the `git` of this machine: one branch, one commit, nothing that runs.

The child gets an environment of its own. A credential is in no argument: it goes through git's
configuration variables in that environment, for this host only. Hooks, submodules, tags, links,
filters and redirects are off.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from machina.errors import MachinaError, Unavailable
from machina.templates.bundle import FolderBundle
from machina.templates.repository import Repository

_POLL_SECONDS: Final = 0.05
_SIZE_EVERY: Final = 4
"""Polls between two looks at the size."""
_SLACK_BYTES: Final = 16 * 1024 * 1024
"""What one file may have beyond the limit, so that the limit is told by us and not by git."""
_MAX_SAID: Final = 2_000
_PASSED_ON: Final = (
    "PATH",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
)
"""Variables of this process that the child may see."""
_CONFIG: Final[Mapping[str, str]] = {
    "protocol.allow": "never",
    "core.hooksPath": os.devnull,
    "core.symlinks": "false",
    "core.fsmonitor": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "credential.helper": "",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "filter.lfs.smudge": "",
    "filter.lfs.process": "",
    "filter.lfs.required": "false",
    "gc.auto": "0",
    "advice.detachedHead": "false",
}


class GitFailed(MachinaError):
    """A clone did not succeed; the message says what git said, without credentials."""

    code, title, status = "git_failed", "Clone failed", 502


class GitMissing(Unavailable):
    """There is no git on this machine."""

    code, title = "git_missing", "git is not installed"
    retryable = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a clone may take: seconds in all, bytes on disk."""

    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Checkout:
    """A repository's files at one commit, as long as the context is open."""

    bundle: FolderBundle
    commit: str


@contextmanager
def cloned(
    repository: Repository,
    branch: str,
    limits: Limits,
    *,
    pinned: str | None,
    stop: threading.Event,
) -> Iterator[Checkout]:
    """Clones into a directory of its own, which goes with the context. Blocking.

    Args:
        branch: A branch or tag; empty for the default branch.
        pinned: What `repository.pin` returned.
        stop: When it is set, the clone is given up.

    Raises:
        GitFailed: git refused, or a limit was reached.
        GitMissing: no git.
    """
    with tempfile.TemporaryDirectory(prefix="machina-git-", ignore_cleanup_errors=True) as home:
        run = _Run(Path(home), _environment(repository, home, pinned), limits, stop, repository)
        run.git(
            "clone",
            "--quiet",
            "--depth=1",
            "--single-branch",
            "--no-tags",
            "--no-recurse-submodules",
            "--template=",
            *([f"--branch={branch}"] if branch else []),
            "--",
            repository.url,
            "checkout",
        )
        commit = run.git("--git-dir=checkout/.git", "rev-parse", "HEAD").strip()
        yield Checkout(FolderBundle(Path(home) / "checkout"), commit)


def _environment(repository: Repository, home: str, pinned: str | None) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    settings = [*_CONFIG.items(), (f"protocol.{repository.scheme}.allow", "always")]
    if pinned is not None:
        settings.append(("http.curloptResolve", pinned))
    if repository.authorization is not None:
        key = f"http.https://{_netloc(repository)}/.extraHeader"
        settings.append((key, f"Authorization: {repository.authorization}"))
    environment |= {
        "HOME": home,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": repository.scheme,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def _netloc(repository: Repository) -> str:
    host = f"[{repository.host}]" if ":" in repository.host else repository.host
    return host if repository.port == 443 else f"{host}:{repository.port}"


class _Run:
    """Runs git in one directory under one set of limits."""

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str],
        limits: Limits,
        stop: threading.Event,
        repository: Repository,
    ) -> None:
        self._home = home
        self._environment = environment
        self._limits = limits
        self._stop = stop
        self._repository = repository
        self._deadline = time.monotonic() + limits.seconds

    def git(self, *arguments: str) -> str:
        """What a command of git wrote to its standard output."""
        program = shutil.which("git")
        if program is None:
            raise GitMissing("There is no git on this machine; install it, or upload an archive.")
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(  # noqa: S603  # arguments are ours; the URL follows a `--`
                [program, *arguments],
                cwd=self._home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            try:
                self._watch(process)
            finally:
                _end(process)
            if process.returncode != 0:
                raise GitFailed(self._worded(_said(err)))
            return _said(out)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Waits for the end of a child, or of what it may take."""
        most = self._limits.bytes + _SLACK_BYTES
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
        polls = 0
        while process.poll() is None:
            polls += 1
            if self._stop.wait(_POLL_SECONDS):
                raise GitFailed("The clone was given up: this process is stopping.")
            if time.monotonic() > self._deadline:
                raise GitFailed(
                    f"{self._repository.url}: the clone took longer than "
                    f"{self._limits.seconds:g} s (MACHINA_GIT_TIMEOUT_SECONDS)."
                )
            if polls % _SIZE_EVERY == 0:
                self._check_size()
        self._check_size()

    def _check_size(self) -> None:
        if _size_of(self._home) > self._limits.bytes:
            raise GitFailed(
                f"{self._repository.url}: the clone is larger than {self._limits.bytes} bytes "
                "(MACHINA_GIT_MAX_BYTES)."
            )

    def _worded(self, said: str) -> str:
        for secret in self._repository.secrets:
            said = said.replace(secret, "***")
        url = self._repository.url
        if "could not read Username" in said or "Authentication failed" in said:
            return (
                f"{url}: the repository does not exist, or needs a token that may read it "
                "(private_repository, gh_token)."
            )
        lines = [line.removeprefix("fatal: ") for line in said.splitlines() if line.strip()]
        return f"{url}: git says: {' '.join(lines[-3:]) or 'nothing'}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a child that still runs, and all that it started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _said(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MAX_SAID))
    return file.read().decode(errors="replace")


def _size_of(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # gone between the two calls
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
