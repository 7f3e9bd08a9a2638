"""The store: what a service knows of the cluster, with indexes, and tables derived from it.

A `Store` holds the newest projection of each object. An `Index` groups the objects of one model under keys, so that a question such as
"which slices belong to this Service?" costs its answer and no more.

A `Table` is a *keyed derivation*: key → value, where a value is a pure function of the store and the key. The keys are those of an index.
While a value is derived, its `View` notes what was read: objects, and keys of indexes. A change of an object touches exactly its own name
and the index keys of its old and new version, so a key must be derived again if and only if it read one of those. Nobody maintains such
dependencies by hand, and nobody can forget one: the table always equals a derivation of every key from nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from common.contracts.objects import Projection
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.multimap import Multimap

P = TypeVar("P", bound=Projection)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, eq=False)
class Index(Generic[P, K]):
    """Objects of `model` under the keys that `keys` gives them. An index is its own identity: make it once, at module level."""

    model: type[P]
    keys: Callable[[P], Iterable[K]]


@dataclass(frozen=True, slots=True)
class Change:
    """An object before and after; None where it is not there. `touched` is what it may have changed for a reader: the object's name, and
    the keys of its two versions in each index.
    """

    ref: ObjectRef
    old: Projection | None
    new: Projection | None
    touched: tuple[Hashable, ...] = field(default=(), compare=False)


class Reads(Protocol):
    """What a derivation may ask."""

    def get(self, model: type[P], namespace: str, name: str) -> P | None:
        """One object by name."""
        ...

    def by(self, index: Index[P, K], key: K) -> tuple[P, ...]:
        """The objects under `key`, sorted by name."""
        ...


class Store:
    """The newest projection of each object. Every change is told to the caller, and a repeated message changes nothing."""

    def __init__(self, *indexes: Index[Any, Any]) -> None:
        self._objects: dict[Resource, dict[ObjectRef, Projection]] = defaultdict(dict)
        self._indexes: dict[Resource, list[Index[Any, Any]]] = defaultdict(list)
        self._entries: dict[Index[Any, Any], Multimap[Any, ObjectRef]] = {}
        for index in indexes:
            self._indexes[index.model.resource].append(index)
            self._entries[index] = Multimap()

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    def apply(self, new: Projection) -> Change | None:
        """Puts `new` in force. None if it is what was there."""
        ref = new.ref
        old = self._objects[ref.resource].get(ref)
        if old == new:
            return None
        self._objects[ref.resource][ref] = new
        return Change(ref, old, new, self._reindex(ref, old, new))

    def delete(self, ref: ObjectRef) -> Change | None:
        """Takes an object out. None if it was not there."""
        old = self._objects[ref.resource].pop(ref, None)
        if old is None:
            return None
        return Change(ref, old, None, self._reindex(ref, old, None))

    def replace(self, objects: Iterable[Projection]) -> tuple[Change, ...]:
        """Makes `objects` all that there is: what is not among them is deleted."""
        wanted = {new.ref: new for new in objects}
        gone = [ref for held in self._objects.values() for ref in held if ref not in wanted]
        changes = chain(map(self.delete, sorted(gone)), map(self.apply, wanted.values()))
        return tuple(change for change in changes if change is not None)

    def get(self, model: type[P], namespace: str, name: str) -> P | None:
        """One object by name."""
        found = self._objects[model.resource].get(ObjectRef(model.resource, namespace, name))
        return found if isinstance(found, model) else None

    def find(self, ref: ObjectRef) -> Projection | None:
        """One object by reference, whatever its model."""
        return self._objects[ref.resource].get(ref)

    def all(self, model: type[P]) -> tuple[P, ...]:
        """Every object of a model, sorted by name."""
        held = self._objects[model.resource]
        return tuple(found for found in map(held.__getitem__, sorted(held, key=_name)) if isinstance(found, model))

    def refs(self, model: type[Projection]) -> tuple[ObjectRef, ...]:
        """The names of all objects of a model, in no order."""
        return tuple(self._objects[model.resource])

    def by(self, index: Index[P, K], key: K) -> tuple[P, ...]:
        """The objects under `key`, sorted by name."""
        held = self._objects[index.model.resource]
        found = (held[ref] for ref in sorted(self._entries[index][key], key=_name))
        return tuple(one for one in found if isinstance(one, index.model))

    def keys(self, index: Index[Any, K]) -> frozenset[K]:
        """All keys of an index that hold an object."""
        return frozenset(self._entries[index].keys())

    def has(self, index: Index[Any, K], key: K) -> bool:
        """Whether any object is under `key`."""
        return key in self._entries[index]

    def _reindex(self, ref: ObjectRef, old: Projection | None, new: Projection | None) -> tuple[Hashable, ...]:
        touched: list[Hashable] = [ref]
        for index in self._indexes[ref.resource]:
            entries = self._entries[index]
            before, after = _keys(index, old), _keys(index, new)
            for key in before - after:
                entries.discard(key, ref)
            for key in after:
                entries.add(key, ref)
            touched += [(index, key) for key in before | after]
        return tuple(touched)


def _name(ref: ObjectRef) -> tuple[str, str]:
    """The order of objects of one resource; ten thousand references compared with each other take a tenth of a second."""
    return ref.namespace, ref.name


def _keys(index: Index[Any, K], version: Projection | None) -> frozenset[K]:
    return frozenset() if version is None else frozenset(index.keys(version))


class View:
    """The store as one derivation sees it: every read is noted."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads: set[Hashable] = set()

    def get(self, model: type[P], namespace: str, name: str) -> P | None:
        """One object by name."""
        self.reads.add(ObjectRef(model.resource, namespace, name))
        return self._store.get(model, namespace, name)

    def by(self, index: Index[P, K], key: K) -> tuple[P, ...]:
        """The objects under `key`, sorted by name."""
        self.reads.add((index, key))
        return self._store.by(index, key)


@dataclass(frozen=True, slots=True)
class Derived(Generic[V]):
    """A value, or None for "nothing stands here", and what was wrong with the objects that it was made from."""

    value: V | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta(Generic[K, V]):
    """How a table changed: keys with their new value (None: gone)."""

    values: Mapping[K, V | None] = field(default_factory=dict)
    problems: bool = False


class Table(Generic[K, V]):
    """A keyed derivation over the keys of `domain`. `derive` must be pure: it may ask its view and nothing else."""

    def __init__(self, store: Store, domain: Index[Any, K], derive: Callable[[Reads, K], Derived[V]]) -> None:
        self._store = store
        self._domain = domain
        self._derive = derive
        self._problems: dict[K, tuple[Problem, ...]] = {}
        self._reads: dict[K, tuple[Hashable, ...]] = {}
        self._readers: Multimap[Hashable, K] = Multimap()
        self._values: dict[K, V] = {}

    @property
    def values(self) -> Mapping[K, V]:
        """The table as it is."""
        return MappingProxyType(self._values)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with any object of the table, sorted, each said once."""
        return tuple(sorted(set(chain.from_iterable(self._problems.values()))))

    def update(self, changes: Iterable[Change]) -> Delta[K, V]:
        """Derives again what `changes` (already in the store) touch, and says which values are different now."""
        dirty: set[K] = set()
        for touched in chain.from_iterable(change.touched for change in changes):
            dirty.update(self._readers[touched])
            if isinstance(touched, tuple) and touched[0] is self._domain:
                dirty.add(touched[1])
        values: dict[K, V | None] = {}
        problems = False
        for key in dirty:
            old = Derived(self._values.pop(key, None), self._problems.pop(key, ()))
            new = self._refresh(key)
            problems |= old.problems != new.problems
            if old.value != new.value:
                values[key] = new.value
        return Delta(values, problems)

    def _refresh(self, key: K) -> Derived[V]:
        for read in self._reads.pop(key, ()):
            self._readers.discard(read, key)
        if not self._store.has(self._domain, key):
            return Derived(None)
        view = View(self._store)
        derived = self._derive(view, key)
        self._reads[key] = tuple(view.reads)
        for read in view.reads:
            self._readers.add(read, key)
        if derived.value is not None:
            self._values[key] = derived.value
        if derived.problems:
            self._problems[key] = derived.problems
        return derived
