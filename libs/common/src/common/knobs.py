"""Knobs: the texts by which people say how they want an object to be treated, each known by a table, from which it is read and explained.

A text is parsed to a type before anything else sees it. One that cannot be read is handed back with what to write instead, and one that the
table does not know by its name; what either means is the affair of whoever asks.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

T = TypeVar("T")

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_SHOWN: Final = 80  # characters of a text that cannot be read


@dataclass(frozen=True, slots=True)
class Knob:
    """One of them: its whole name, what it is of, which field of that it sets, how it is read (which raises ValueError with what to write),
    what holds where it is not given, and what it does.
    """

    name: str
    of: str
    field: str
    read: Callable[[str], Any]
    default: str
    text: str

    @property
    def short(self) -> str:
        """The name without its prefix."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Bad:
    """A text that cannot be read, as it may be shown, and what to write instead."""

    knob: Knob
    value: str
    mend: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What some texts say: of what → field → value, and the others in the order of their names."""

    given: Mapping[str, dict[str, Any]]
    bad: tuple[Bad, ...]
    unknown: tuple[str, ...]


class Knobs:
    """A table of them."""

    def __init__(self, *knobs: Knob) -> None:
        self._knobs = knobs
        self._by_name = {knob.name: knob for knob in knobs}
        self._kinds = frozenset(knob.of for knob in knobs)

    def __iter__(self) -> Iterator[Knob]:
        return iter(self._knobs)

    def __len__(self) -> int:
        return len(self._knobs)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def of(self, kind: str) -> tuple[Knob, ...]:
        """Those of one kind, as they stand in the table."""
        return tuple(knob for knob in self._knobs if knob.of == kind)

    def read(self, texts: Mapping[str, str]) -> Reading:
        """What `texts` say, by their names."""
        given: dict[str, dict[str, Any]] = {kind: {} for kind in self._kinds}
        bad: list[Bad] = []
        unknown: list[str] = []
        for name, text in sorted(texts.items()):
            knob = self._by_name.get(name)
            if knob is None:
                unknown.append(name)
                continue
            try:
                given[knob.of][knob.field] = knob.read(text.strip())
            except ValueError as mend:
                bad.append(Bad(knob, f"{text[:_SHOWN]!r}", str(mend)))
        return Reading(given, tuple(bad), tuple(unknown))


def boolean(value: str) -> bool:
    """`true` or `false`."""
    if value not in {"true", "false"}:
        raise ValueError("write true or false")
    return value == "true"


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """A whole number."""

    def read(value: str) -> int:
        if not _WHOLE.fullmatch(value) or not lowest <= int(value) <= highest:
            raise ValueError(f"write a whole number from {lowest} to {highest}")
        return int(value)

    return read


def one_of(choices: Mapping[str, T]) -> Callable[[str], T]:
    """One of some words."""

    def read(value: str) -> T:
        if value not in choices:
            words = sorted(choices)
            raise ValueError(f"write {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else f"write {words[0]}")
        return choices[value]

    return read
