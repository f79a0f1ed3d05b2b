"""What one process of a group counts, where the others find it: prometheus_client's own files.

The library's shared values lock and write through a file on every count, which costs several times
what is measured. Here a count is an addition in memory, and the files follow once a second.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from machina.observability.process_group import DIRECTORY_VARIABLE, NAME_VARIABLE


class Value:
    """One number, as the library's metrics want it. Used on one event loop, so it needs no lock."""

    __slots__ = ("_file", "_key", "_published", "_value")

    def __init__(self, file: MmapedDict, key: str, *, keep: bool) -> None:
        """`keep` goes on from what a predecessor of the same name has counted."""
        self._file = file
        self._key = key
        self._published: float = file.read_value(key)[0]  # type: ignore[no-untyped-call]  # the library
        self._value = self._published if keep else 0.0

    def inc(self, amount: float) -> None:
        self._value += amount

    def set(self, value: float, timestamp: float | None = None) -> None:
        self._value = value

    def get(self) -> float:
        return self._value

    def get_exemplar(self) -> None:
        """There are none."""

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
        self._values: list[Value] = []

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
    ) -> Value:
        """A number for one of the library's metrics, which decides about these parameters."""
        group = f"{kind}_{multiprocess_mode}" if kind == "gauge" else kind
        if group not in self._files:
            path = self._directory / f"{group}_{self._name}.db"
            self._files[group] = MmapedDict(str(path))  # type: ignore[no-untyped-call]  # the library
        key = mmap_key(family, name, list(label_names), list(label_values), meaning)
        value = Value(self._files[group], key, keep=kind != "gauge")
        self._values.append(value)
        return value

    def publish(self) -> None:
        """Brings the files up to date: some fifty microseconds for what did not change."""
        for value in self._values:
            value.publish()


def join_group(environ: MutableMapping[str, str]) -> Share | None:
    """This process's share, when its supervisor put it into a group; call it before `make_metrics`.

    It takes what it was told out of `environ`: the processes that this one starts are not in it.
    """
    directory, name = environ.pop(DIRECTORY_VARIABLE, ""), environ.pop(NAME_VARIABLE, "")
    if not directory or not name:
        return None
    share = Share(Path(directory), name)
    values.ValueClass = share.make_value  # the library's own seam, one for the whole process
    return share
