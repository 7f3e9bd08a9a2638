"""A map from a key to several values, nearly all of whose keys have one: a plain map, with a set only where it is needed."""

from collections.abc import Collection, Hashable, KeysView
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)


class Multimap(Generic[K, V]):
    """Key → set of values. A key without values is not there."""

    def __init__(self) -> None:
        self._first: dict[K, V] = {}
        self._more: dict[K, set[V]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._first

    def __getitem__(self, key: K) -> Collection[V]:
        """The values under `key`, in no order; none for a key that is not there. Not to be kept over a change."""
        if key not in self._first:
            return ()
        return (self._first[key], *self._more.get(key, ()))

    def keys(self) -> KeysView[K]:
        """All keys that have a value."""
        return self._first.keys()

    def add(self, key: K, value: V) -> None:
        """Puts `value` under `key`, once."""
        first = self._first.setdefault(key, value)
        if first != value:
            self._more.setdefault(key, set()).add(value)

    def discard(self, key: K, value: V) -> None:
        """Takes `value` from under `key`, if it is there."""
        more = self._more.get(key)
        if more is None:
            if self._first.get(key) == value:
                del self._first[key]
            return
        if self._first[key] == value:
            self._first[key] = more.pop()
        else:
            more.discard(value)
        if not more:
            del self._more[key]
