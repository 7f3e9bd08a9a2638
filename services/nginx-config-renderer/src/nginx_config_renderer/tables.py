"""Tables: what nginx should hold, entry by entry, each table made of the derivation of its values and of how these are written."""

from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from common.contracts.problems import Problem
from common.store import Change, Table
from nginx_config_renderer.plan import Entry

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Part(Generic[K, V]):
    """One of nginx's tables: how it is derived, and how its keys and values are written."""

    name: str
    table: Table[K, V]
    key: Callable[[K], str]
    entry: Callable[[V], str]
    waits: Callable[[V], bool] = lambda _: False

    def update(self, changes: Sequence[Change], have: Container[Entry]) -> tuple[dict[Entry, str | None], bool]:
        """The entries that are different now, and whether the problems are. What waits leaves in its place what is there."""
        delta = self.table.update(changes)
        new: dict[Entry, str | None] = {}
        for key, value in delta.values.items():
            entry = self.name, self.key(key)
            if value is None or not self.waits(value) or entry not in have:
                new[entry] = None if value is None else self.entry(value)
        return new, delta.problems


class Tables:
    """All of them together."""

    def __init__(self, *parts: Part[Any, Any]) -> None:
        self._parts = parts
        self._entries: dict[Entry, str] = {}

    @property
    def entries(self) -> Mapping[Entry, str]:
        """Everything that nginx should hold."""
        return MappingProxyType(self._entries)

    @property
    def problems(self) -> Iterator[Problem]:
        """What is wrong with any object that they are made of."""
        return (problem for part in self._parts for problem in part.table.problems)

    def fix(self, entry: Entry, text: str) -> None:
        """Adds what no object says, and so no change takes away."""
        self._entries[entry] = text

    def update(self, changes: Sequence[Change]) -> tuple[frozenset[Entry], bool]:
        """Takes changes of objects: the entries that are different now, and whether the problems are."""
        new: dict[Entry, str | None] = {}
        problems = False
        for part in self._parts:
            entries, more_problems = part.update(changes, self._entries)
            new |= entries
            problems |= more_problems
        for entry, text in new.items():
            if text is None:
                self._entries.pop(entry, None)
            else:
                self._entries[entry] = text
        return frozenset(new), problems
