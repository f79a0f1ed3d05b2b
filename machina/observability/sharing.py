"""How a process counts, and where the others of its group find it: prometheus_client's own files.

The library's values lock on every count, and write through a file when they are shared: four to
seven times as slow. Here a count is an addition in memory, and the files follow once a second.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from machina.observability.process_group import DIRECTORY_VARIABLE, NAME_VARIABLE


class Value:
    """One number, as the library's metrics want it. Used on one event loop, so it needs no lock."""

    __slots__ = ("_value",)

    def __init__(self, *_: object, **__: object) -> None:
        self._value = 0.0

    def inc(self, amount: float) -> None:
        self._value += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        self._value = value

    def get(self) -> float:
        return self._value

    def get_exemplar(self) -> None:
        """There are none."""


class SharedValue(Value):
    """The same, with a place in a file."""

    __slots__ = ("_file", "_key", "_published")

    def __init__(self, file: MmapedDict, key: str, *, keep: bool) -> None:
        """`keep` goes on from what a predecessor of the same name has counted."""
        super().__init__()
        self._file = file
        self._key = key
        self._published: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]  # the library
        if keep:
            self._value = self._published

    def publish(self) -> None:
        """Writes the number into the file, if it is another one than before."""
        if self._value != self._published:
            self._published = self._value
            self._file.write_value(self._key, self._value, 0.0)  # type: ignore[no-untyped-call]  # the library


def make_collector(directory: Path) -> Collector:
    """What collects the metrics of a whole group: reads the files of all its processes."""
    return MultiProcessCollector(None, path=str(directory))  # type: ignore[no-untyped-call]  # the library


class Share:
    """The part that one process has in the metrics of its group."""

    def __init__(self, directory: Path, name: str) -> None:
        self.collector = make_collector(directory)
        """The metrics of the whole group."""
        self._directory = directory
        self._name = name
        self._files: dict[str, MmapedDict] = {}
        self._values: list[SharedValue] = []

    def make_value(
        self,
        kind: str,
        family: str,
        name: str,
        label_names: Sequence[str],
        label_values: Sequence[str],
        meaning: str,
        multiprocess_mode: str = "",
        **_: object,
    ) -> SharedValue:
        """A number for one of the library's metrics, which decides about these parameters."""
        group = f"{kind}_{multiprocess_mode}" if kind == "gauge" else kind
        if group not in self._files:
            path = self._directory / f"{group}_{self._name}.db"
            self._files[group] = MmapedDict(str(path))  # type: ignore[no-untyped-call]  # the library
        key = mmap_key(family, name, list(label_names), list(label_values), meaning)
        value = SharedValue(self._files[group], key, keep=kind != "gauge")
        self._values.append(value)
        return value

    def publish(self) -> None:
        """Brings the files up to date: twenty microseconds when nothing changed."""
        for value in self._values:
            value.publish()

    def close(self) -> None:
        """Publishes for the last time."""
        self.publish()
        self._values.clear()
        for file in self._files.values():
            file.close()  # type: ignore[no-untyped-call]  # the library
        self._files.clear()


@contextmanager
def join_group(environ: MutableMapping[str, str]) -> Iterator[Share | None]:
    """Decides how this process counts, while it is open; enter it before `make_metrics`.

    Yields the share of this process, when its supervisor put it into a group. What the supervisor
    said is taken out of `environ`: what this process starts is not in the group.
    """
    directory, name = environ.pop(DIRECTORY_VARIABLE, ""), environ.pop(NAME_VARIABLE, "")
    share = Share(Path(directory), name) if directory and name else None
    # The library's own seam, one for the whole process.
    before, values.ValueClass = values.ValueClass, Value if share is None else share.make_value
    try:
        yield share
    finally:
        values.ValueClass = before
        if share is not None:
            share.close()
