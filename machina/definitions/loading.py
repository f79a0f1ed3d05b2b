"""YAML files of authors as plain JSON values: safe, bounded, and tolerant where authors are odd.

The file is read event by event, so that every limit holds before anything is built. Scalars mean
what YAML 1.1 says, as the authors assume (`yes` is true); what JSON cannot hold stays the text that
was written (dates, numbers beyond 64 bits, `.nan`). Keys are always the text that was written.
A key that occurs twice in a mapping is no error: two mappings are merged field by field, of
anything else the later one counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from machina.definitions.loading_scalars import ScalarRefused, read_scalar
from machina.errors import Invalid

MAX_BYTES: Final = 2 * 1024 * 1024
MAX_NODES: Final = 100_000
"""Keys and values of a file, each alias counted with everything it stands for."""
MAX_ALIASES: Final = 100
MAX_DEPTH: Final = 64

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it; the events are the same."""
_COLLECTION_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "omap", "pairs", "set")
) | {"!"}


class YamlInvalid(Invalid):
    """A file is no YAML, or more than a file may be; the message says where in the file."""

    code, title = "yaml_invalid", "Unreadable YAML"


class _Refused(Exception):
    """Why an event is refused; its place is added by who knows it."""


def load_documents(data: bytes) -> list[Any]:
    """The documents of a YAML file that are not empty; an empty file has none. Blocking.

    Raises:
        YamlInvalid: not UTF-8, not YAML, a tag that is not one of YAML's own, or over a limit.
    """
    if len(data) > MAX_BYTES:
        raise YamlInvalid(f"the file is larger than {MAX_BYTES} bytes; split it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise YamlInvalid(
            f"byte {wrong.start} is not UTF-8; save the file as UTF-8 text."
        ) from None
    if "\0" in text:
        raise YamlInvalid("the file holds a NUL: it is no text file.")
    try:
        return _Builder().build(yaml.parse(text, Loader=_LOADER))
    except yaml.YAMLError as wrong:
        raise YamlInvalid(_worded(wrong)) from None


def _worded(wrong: yaml.YAMLError) -> str:
    mark = getattr(wrong, "problem_mark", None)
    problem = getattr(wrong, "problem", None) or getattr(wrong, "reason", None) or "not YAML"
    place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return f"{place}{problem}."


@dataclass(slots=True)
class _List:
    anchor: str | None
    value: list[Any] = field(default_factory=list)

    def add(self, item: Any) -> None:
        self.value.append(item)

    def close(self) -> list[Any]:
        return self.value


@dataclass(slots=True)
class _Mapping:
    anchor: str | None
    value: dict[str, Any] = field(default_factory=dict)
    merged: list[dict[str, Any]] = field(default_factory=list)
    key: str | None = None
    is_merge: bool = False

    def add(self, item: Any) -> None:
        """Takes the value for the key that came before."""
        key, self.key = self.key, None
        if self.is_merge:
            self.merged += _mergeable(item)
        elif key is not None:
            self.value[key] = _joined(self.value[key], item) if key in self.value else item

    def close(self) -> dict[str, Any]:
        """What was written wins over what was merged in, an earlier merge over a later one."""
        if not self.merged:
            return self.value
        whole: dict[str, Any] = {}
        for part in reversed(self.merged):
            whole |= part
        return whole | self.value


def _mergeable(item: Any) -> list[dict[str, Any]]:
    parts = item if isinstance(item, list) else [item]
    if not all(isinstance(part, dict) for part in parts):
        raise _Refused("'<<' merges mappings, and its value is none")
    return parts


def _joined(earlier: Any, later: Any) -> Any:
    """The value of a key that occurs twice."""
    if not isinstance(earlier, dict):
        return later
    if later is None:  # a group without fields, which adds none
        return earlier
    if not isinstance(later, dict):
        return later
    for key, item in later.items():
        earlier[key] = _joined(earlier[key], item) if key in earlier else item
    return earlier


class _Builder:
    """Builds the values of one file from its events. Nothing in them is shared."""

    def __init__(self) -> None:
        self.documents: list[Any] = []
        self.open: list[_List | _Mapping] = []
        self.anchors: dict[str, Any] = {}
        self.nodes = 0
        self.aliases = 0

    def build(self, events: Iterator[yaml.Event]) -> list[Any]:
        for event in events:
            try:
                self._take(event)
            except _Refused as wrong:
                mark = event.start_mark
                place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
                raise YamlInvalid(f"{place}{wrong}.") from None
        return self.documents

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._start(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            frame = self.open.pop()
            self._finish(frame.close(), frame.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.anchors = {}  # they name things of one document

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._count()
        frame = self.open[-1] if self.open else None
        try:
            value = read_scalar(event.value, event.tag, plain=event.implicit[0])
        except ScalarRefused as wrong:
            raise _Refused(str(wrong)) from None
        if isinstance(frame, _Mapping) and frame.key is None:
            frame.key = event.value
            frame.is_merge = event.value == "<<" and event.implicit[0]
            if event.anchor:
                self.anchors[event.anchor] = event.value
        else:
            self._finish(value, event.anchor)

    def _start(self, event: yaml.CollectionStartEvent) -> None:
        self._count()
        self._must_not_be_key()
        if event.tag is not None and event.tag not in _COLLECTION_TAGS:
            raise _Refused(f"the tag {event.tag!r:.80} is not allowed; remove it")
        if len(self.open) >= MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH} levels")
        is_list = isinstance(event, yaml.SequenceStartEvent)
        self.open.append(_List(event.anchor) if is_list else _Mapping(event.anchor))

    def _alias(self, anchor: str | None) -> None:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise _Refused(f"more than {MAX_ALIASES} aliases")
        if anchor is None or anchor not in self.anchors:
            raise _Refused(f"the alias '*{anchor:.80}' stands for nothing that is complete")
        frame = self.open[-1] if self.open else None
        value = self.anchors[anchor]
        if isinstance(frame, _Mapping) and frame.key is None and isinstance(value, str):
            self._count()
            frame.key, frame.is_merge = value, False
            return
        self._must_not_be_key()
        self._finish(self._copy(value, len(self.open)), None)

    def _copy(self, value: Any, depth: int) -> Any:
        """The value once more, counted like one that was written out."""
        self._count()
        if isinstance(value, dict | list) and depth >= MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, list):
            return [self._copy(item, depth + 1) for item in value]
        if isinstance(value, dict):
            self._count(len(value))
            return {key: self._copy(item, depth + 1) for key, item in value.items()}
        return value

    def _finish(self, value: Any, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = value
        if self.open:
            self.open[-1].add(value)
        elif value is not None:
            self.documents.append(value)

    def _must_not_be_key(self) -> None:
        frame = self.open[-1] if self.open else None
        if isinstance(frame, _Mapping) and frame.key is None:
            raise _Refused("a key must be text; put quotes around text that begins with a brace")

    def _count(self, nodes: int = 1) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _Refused(f"more than {MAX_NODES} keys and values, aliases written out")
