"""Regular expressions from outside, searched in time that grows only with the length of the text.

Python's `re` backtracks: `(a+)+$` on a hundred thousand letters would hold the process, and the
interpreter's lock with it, for ever. Here a pattern becomes an automaton whose states are built as
the text asks for them, so each character costs one look-up, or one pass over the pattern when the
state is new. What an automaton cannot do (back-references, look-around, atomic groups) is refused.
A short sequence of single characters, as `^acme:`, cannot backtrack and is left to `re`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from machina.store.base import QueryRefused

MAX_PATTERN: Final = 256
"""Longest pattern, in characters."""
MAX_INSTRUCTIONS: Final = 1_000
"""Largest automaton, counted repetitions written out."""
MAX_STEPS: Final = 500_000
"""New work on one text before the search is given up: about half a second at the very worst."""
MAX_REMEMBERED: Final = 5_000
"""States kept from one text to the next."""
_SIMPLE_ATOMS: Final = 64
_SIMPLE_TEXT: Final = 65_536
_FLAGS: Final = {"i": re.I, "m": re.M, "s": re.S, "x": re.X}
_REFUSED_FLAGS: Final = re.ASCII | re.LOCALE

_parser: Any = importlib.import_module(
    "re._parser"
)  # the parser of `re` itself, one reading of all
_compiler: Any = importlib.import_module("re._compiler")

Search = Callable[[str], bool]


def compile_search(pattern: str, options: str = "") -> Search:
    """A function that says whether a text contains the pattern.

    Args:
        pattern: in Python's syntax, at most 256 characters.
        options: any of `i` (case), `m` (lines), `s` (dot matches all), `x` (verbose).

    Raises:
        QueryRefused: not a regular expression, too long or too large, or beyond an automaton. The
            search itself raises it when a text takes more steps than it may.
    """
    if len(pattern) > MAX_PATTERN:
        raise QueryRefused(f"A regular expression has at most {MAX_PATTERN} characters.")
    unknown = set(options) - set(_FLAGS)
    if unknown:
        raise QueryRefused(f"'$options' knows i, m, s and x, not '{min(unknown)}'.")
    flags = re.NOFLAG
    for option in options:
        flags |= _FLAGS[option]
    try:
        tree = _parser.parse(pattern, flags)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise QueryRefused(f"Not a regular expression: {error}.") from None
    if tree.state.flags & _REFUSED_FLAGS:
        raise QueryRefused("A regular expression may not use the flags (?a) and (?L).")
    automaton = _Automaton(_Builder(tree).program)
    if not _is_simple(tree):
        return automaton.search
    quick = _compiler.compile(tree, flags).search

    def search(text: str) -> bool:
        return quick(text) is not None if len(text) <= _SIMPLE_TEXT else automaton.search(text)

    return search


def _is_simple(tree: Any) -> bool:
    return len(tree) <= _SIMPLE_ATOMS and all(
        str(op) in _ATOMS or str(op) == "AT" for op, _ in tree
    )


_ATOMS: Final = frozenset(("LITERAL", "NOT_LITERAL", "ANY", "IN"))
START: Final = ""
END: Final = "end"
LAST_NEWLINE: Final = "\n end"
"""What stands beside a position, where it is no plain character."""


class _Instruction(NamedTuple):
    """One step of the automaton: eats a character, or asserts something, or only branches."""

    accepts: Callable[[str], bool] | None = None
    holds: Callable[[str, str], bool] | None = None
    then: tuple[int, ...] = ()


class _Builder:
    """Turns the parsed tree into instructions, from the end backwards. 0 is the final one."""

    def __init__(self, tree: Any) -> None:
        self._state = tree.state
        self._instructions: list[_Instruction] = [_Instruction()]
        start = self._sequence(tree, 0, tree.state.flags)
        self.program = (self._instructions, start)

    def _add(self, instruction: _Instruction) -> int:
        if len(self._instructions) >= MAX_INSTRUCTIONS:
            raise QueryRefused("The regular expression repeats too much.")
        self._instructions.append(instruction)
        return len(self._instructions) - 1

    def _sequence(self, nodes: Iterable[Any], after: int, flags: int) -> int:
        for node in reversed(list(nodes)):
            after = self._node(node, after, flags)
        return after

    def _node(self, node: Any, after: int, flags: int) -> int:
        name, argument = str(node[0]), node[1]
        if name in _ATOMS:
            return self._add(_Instruction(accepts=self._atom(node, flags), then=(after,)))
        if name == "AT":
            return self._add(_Instruction(holds=_assertion(str(argument), flags), then=(after,)))
        if name == "BRANCH":
            ways = tuple(self._sequence(way, after, flags) for way in argument[1])
            return self._add(_Instruction(then=ways))
        if name == "SUBPATTERN":
            _, added, removed, inner = argument
            return self._sequence(inner, after, (flags | added) & ~removed)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(argument, after, flags)
        raise QueryRefused(
            "A regular expression may not use back-references, look-around, conditions or "
            f"possessive repetition ({name.lower().replace('_', ' ')})."
        )

    def _repeat(self, argument: Any, after: int, flags: int) -> int:
        least, most, inner = argument
        if most is _parser.MAXREPEAT:
            loop = self._add(_Instruction())
            self._instructions[loop] = _Instruction(
                then=(self._sequence(inner, loop, flags), after)
            )
            after = loop
        else:
            for _ in range(min(most - least, MAX_INSTRUCTIONS)):
                once = self._sequence(inner, after, flags)
                after = self._add(_Instruction(then=(once, after)))
        for _ in range(min(least, MAX_INSTRUCTIONS)):
            after = self._sequence(inner, after, flags)
        return after

    def _atom(self, node: Any, flags: int) -> Callable[[str], bool]:
        # `re` decides about single characters, so that classes and case agree with it exactly.
        alone = _parser.SubPattern(self._state, [node])
        match = _compiler.compile(alone, flags).match
        return lambda character: match(character) is not None


class _Automaton:
    """Searches by sets of instructions; remembers where each set went with each character."""

    def __init__(self, program: tuple[list[_Instruction], int]) -> None:
        self._instructions, self._start = program
        self._asserts = any(instruction.holds for instruction in self._instructions)
        self._steps = 0
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[tuple[frozenset[int], str], int] = {}
        self._members: list[frozenset[int]] = []
        self._before: list[str] = []
        self._moves: list[dict[str, int]] = []

    def search(self, text: str) -> bool:
        """Whether the pattern occurs in the text."""
        self._steps = 0
        if len(self._members) > MAX_REMEMBERED:
            self._forget()
        current = self._number(frozenset((self._start,)), START)
        moves = self._moves
        for character in text[:-1]:
            following = moves[current].get(character)
            if following is None:
                following = self._move(current, character)
            if following < 0:
                return True
            current = following
        if text:
            current = self._move(current, LAST_NEWLINE if text[-1] == "\n" else text[-1])
        return current < 0 or self._move(current, END) < 0

    def _number(self, members: frozenset[int], before: str) -> int:
        """The number of a state: instructions to go on with, and the kind of what stands before."""
        known = self._numbers.get((members, before))
        if known is None:
            known = self._numbers[members, before] = len(self._members)
            self._members.append(members)
            self._before.append(before)
            self._moves.append({})
        return known

    def _move(self, current: int, after: str) -> int:
        """The number of the next state, or -1 when the pattern ends here."""
        reached = self._expand(self._members[current], self._before[current], after)
        if reached is None:
            following = -1
        else:
            # A new try begins at every position.
            arrived = frozenset(self._eat(reached, after) | {self._start})
            following = self._number(arrived, _kind(after) if self._asserts else START)
        self._moves[current][after] = following
        return following

    def _expand(self, members: frozenset[int], before: str, after: str) -> set[int] | None:
        """All instructions reachable without a character; None when the final one is among them."""
        seen = set(members)
        waiting = list(members)
        while waiting:
            place = waiting.pop()
            if place == 0:
                return None
            instruction = self._instructions[place]
            self._spend()
            if instruction.accepts is not None:
                continue
            if instruction.holds is not None and not instruction.holds(before, after):
                continue
            fresh = [there for there in instruction.then if there not in seen]
            seen.update(fresh)
            waiting.extend(fresh)
        return seen

    def _eat(self, reached: set[int], after: str) -> set[int]:
        character = "\n" if after == LAST_NEWLINE else after
        arrived: set[int] = set()
        if after == END:
            return arrived
        for place in reached:
            accepts = self._instructions[place].accepts
            if accepts is not None and accepts(character):
                arrived.update(self._instructions[place].then)
        return arrived

    def _spend(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise QueryRefused("The regular expression needs too many steps on a stored text.")


def _assertion(name: str, flags: int) -> Callable[[str, str], bool]:
    by_line = bool(flags & re.M)
    if name == "AT_BEGINNING" and by_line:
        return lambda before, _: before in (START, "\n")
    if name == "AT_END":
        ends = (END, LAST_NEWLINE, "\n") if by_line else (END, LAST_NEWLINE)
        return lambda _, after: after in ends
    return _ASSERTIONS[name]


def _kind(character: str) -> str:
    """One character for all that assertions cannot tell apart."""
    if character in ("\n", LAST_NEWLINE):
        return "\n"
    return "w" if _is_word(character) else " "


def _is_word(character: str) -> bool:
    return len(character) == 1 and (character.isalnum() or character == "_")


_ASSERTIONS: Final[dict[str, Callable[[str, str], bool]]] = {
    "AT_BEGINNING": lambda before, _: before == START,
    "AT_BEGINNING_STRING": lambda before, _: before == START,
    "AT_END_STRING": lambda _, after: after == END,
    "AT_BOUNDARY": lambda before, after: _is_word(before) != _is_word(after),
    # `re` lets neither kind of boundary hold in an empty text.
    "AT_NON_BOUNDARY": lambda before, after: (
        _is_word(before) == _is_word(after) and (before, after) != (START, END)
    ),
}
