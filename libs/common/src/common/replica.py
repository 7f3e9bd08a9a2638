"""A replica: the messages of the bus as a store of typed objects, and the proof that nothing is missing from it.

`Replica.take` is given what a follower hands over and answers what changed. A message that is not valid changes nothing: the object keeps
its last good version, and a problem says why. Whoever can publish on the bus has skipped the API server, so each message is held against
its subject (`common.contracts.state.read_state`), against its own digest, and against the version that is known: what is older, or ends an
object that was never the one we have, was sent again or made up. Only a new snapshot, in which all is read anew, may go back.

The proof is the sync marker: how many objects of a resource the watcher had published up to a sequence, and the fold of their digests. It
is compared whenever no message of the resource came after that sequence.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.codec import CodecError, decode, digest
from common.contracts import subjects
from common.contracts.objects import Projection
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource, ResourceVersion
from common.contracts.state import ObjectApplied, StateError, SyncMarker, read_marker, read_state
from common.fingerprints import Fingerprints
from common.store import Change, Store


class StoredMessage(Protocol):
    """A message as a follower hands it over."""

    @property
    def subject(self) -> str:
        """Where it stands."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its CloudEvents attributes."""
        ...

    @property
    def body(self) -> bytes:
        """Its data."""
        ...

    @property
    def sequence(self) -> int:
        """Its place in the stream."""
        ...

    @property
    def gone(self) -> bool:
        """Whether it is a tombstone."""
        ...


class TimedMessage(StoredMessage, Protocol):
    """A message with the time at which the bus stored it, in seconds since 1970."""

    @property
    def time(self) -> float:
        """When it was stored."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """A sync marker held against the replica."""

    resource: Resource
    marker: SyncMarker
    count: int
    hash: str

    @property
    def equal(self) -> bool:
        """Whether the replica holds exactly what the watcher published."""
        return (self.count, self.hash) == (self.marker.count, self.marker.hash)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A version of an object that was taken; without one the object is gone. `time` is when the watcher published it (RFC 3339)."""

    ref: ObjectRef
    version: str
    time: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What some messages did to the replica, and which versions they brought."""

    changes: tuple[Change, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    sightings: tuple[Sighting, ...] = ()


class Replica:
    """The objects of one cluster. `markers` are the newest of each resource; one without a marker is not known to be complete.

    `unreadable` says of which objects, and markers, the newest message is not valid. Of the resources in `partial` only some objects are
    followed, so that markers say nothing of how many there should be.
    """

    def __init__(self, cluster: str, store: Store, *, partial: Collection[Resource] = ()) -> None:
        self._partial = frozenset(partial)
        self.store = store
        self.markers: dict[Resource, SyncMarker] = {}
        self.unreadable: dict[ObjectRef, Problem] = {}
        self._cluster = cluster
        self._prints: dict[Resource, Fingerprints] = defaultdict(Fingerprints)
        self._versions: dict[ObjectRef, ResourceVersion] = {}
        self._newest: dict[Resource, int] = {}
        self._snapshot = 0  # a marker from before the end of the snapshot proves nothing

    def replace(self, messages: Sequence[StoredMessage], tombstones: Sequence[StoredMessage] = ()) -> Taken:
        """Makes `messages` all that there is; `tombstones` were read with them. Markers are noted, and not compared yet."""
        self.markers = {}
        self.unreadable = {}
        self._versions, versions = {}, self._versions
        before, self._prints = self._prints, defaultdict(Fingerprints)
        objects: list[Projection] = []
        sightings: list[Sighting] = []
        for message in messages:
            read = self._read(message)
            if isinstance(read, ObjectApplied):
                objects.append(read.object)
                ref = self._note(read)
                sightings.append(_sighting(ref, str(self._versions[ref]), message))
            elif isinstance(read, Problem):
                objects.extend(self._kept(read.ref, before))
                if read.ref in versions:
                    self._versions[read.ref] = versions[read.ref]
        self._newest.clear()
        self._snapshot = max((message.sequence for message in (*messages, *tombstones)), default=0)
        return Taken(self.store.replace(objects), sightings=tuple(sightings))

    def change(self, messages: Sequence[StoredMessage]) -> Taken:
        """Applies `messages` in their order."""
        changes: list[Change | None] = []
        comparisons: list[Comparison] = []
        sightings: list[Sighting] = []
        for message in messages:
            read = self._read(message)
            if isinstance(read, ObjectApplied):
                changes.append(self.store.apply(read.object))
                ref = self._note(read)
                sightings.append(_sighting(ref, str(self._versions[ref]), message))
            elif isinstance(read, ObjectRef):
                self._prints[read.resource].drop(read)
                self._versions.pop(read, None)
                changes.append(self.store.delete(read))
                sightings.append(_sighting(read, "", message))
            elif (
                isinstance(read, tuple)
                and read[0] not in self._partial
                and read[1].through >= self._newest.get(read[0], self._snapshot)
            ):
                comparisons.append(self._compare(*read))
        return Taken(tuple(change for change in changes if change is not None), tuple(comparisons), tuple(sightings))

    def _note(self, read: ObjectApplied) -> ObjectRef:
        """Remembers it. Of its message nothing is kept, not even a text: of the ten thousand messages of a snapshot, each would keep the
        memory around it from being given back.
        """
        ref = read.ref
        self._prints[ref.resource].put(ref, read.digest)
        self._versions[ref] = ResourceVersion(read.version.text.encode().decode())
        return ref

    def _read(self, message: StoredMessage) -> ObjectApplied | ObjectRef | tuple[Resource, SyncMarker] | Problem | None:
        """An object, the name of a deleted one, a marker, a problem, or None for what is not ours."""
        read = self._parse(message)
        if isinstance(read, Problem):
            self.unreadable[read.ref] = read
        elif read is not None:
            self.unreadable.pop(_about(read), None)
        return read

    def _parse(self, message: StoredMessage) -> ObjectApplied | ObjectRef | tuple[Resource, SyncMarker] | Problem | None:
        try:
            if message.subject.startswith(f"{subjects.SYNC}."):
                return self._marker(message)
            where = subjects.parse_state(message.subject)
        except subjects.SubjectError:
            return None
        if where.cluster != self._cluster:
            return None
        self._newest[where.ref.resource] = message.sequence
        try:
            return self._checked(where.ref, message)
        except CodecError as error:
            return Problem(where.ref, "BadMessage", f"{where.ref}: {error}")
        except StateError as error:
            return Problem(where.ref, "BadMessage", str(error))

    def _checked(self, ref: ObjectRef, message: StoredMessage) -> ObjectApplied | ObjectRef:
        """What a message says about `ref`, if it can be believed. Raises CodecError or StateError."""
        held = self.store.find(ref) if ref in self._versions else None
        if message.gone and held is None:
            return ref
        event = decode(message.headers, message.body)
        read = read_state(ref, event)
        if isinstance(read, ObjectApplied) is message.gone:
            raise StateError(f"{ref}: a tombstone has a state, or a message without one is no tombstone")
        if isinstance(read, ObjectApplied):
            if digest(event.data) != read.digest:
                raise StateError(f"{ref}: the state on the bus is not what its hash {read.digest[:40]!r} says")
        elif held is not None and held.metadata.uid != read.uid:
            raise StateError(f"{ref}: a tombstone of uid {read.uid[:40]!r} ends no object of uid {held.metadata.uid!r}")
        known = self._versions.get(ref)
        if known is not None and read.version < known:
            raise StateError(f"{ref}: version {read.version} came after version {known}; somebody sent an old message again")
        return read if isinstance(read, ObjectApplied) else ref

    def _marker(self, message: StoredMessage) -> tuple[Resource, SyncMarker] | Problem | None:
        cluster, resource = subjects.parse_sync(message.subject)
        if cluster != self._cluster or message.gone:
            return None
        try:
            marker = read_marker(decode(message.headers, message.body))
        except (CodecError, StateError) as error:
            return Problem(_marked(resource), "BadMarker", str(error))
        self.markers[resource] = marker
        return resource, marker

    def _compare(self, resource: Resource, marker: SyncMarker) -> Comparison:
        held = self._prints[resource]
        return Comparison(resource, marker, len(held), held.fold)

    def _kept(self, ref: ObjectRef, before: Mapping[Resource, Fingerprints]) -> Iterable[Projection]:
        """The last good version of an object whose new message cannot be read."""
        held = self.store.find(ref)
        if held is not None and ref in before[ref.resource]:
            self._prints[ref.resource].keep(ref, before[ref.resource])
            yield held


def _sighting(ref: ObjectRef, version: str, message: StoredMessage) -> Sighting:
    return Sighting(ref, version, message.headers.get("ce-time", ""))


def _about(read: ObjectApplied | ObjectRef | tuple[Resource, SyncMarker]) -> ObjectRef:
    if isinstance(read, ObjectRef):
        return read
    return read.ref if isinstance(read, ObjectApplied) else _marked(read[0])


def _marked(resource: Resource) -> ObjectRef:
    """What a marker speaks of: all objects of a resource."""
    return ObjectRef(resource, "", "*")
