"""State messages: what the watcher says about objects, and how complete it was.

An applied message carries a whole projection and replaces what was known; a deleted message is a tombstone with no body. Both stand at
the object's own subject, where only the newest stays. A sync marker says, for one resource, what the replica held at a point of the
stream, so that a follower can check its own copy.

    ce-id         <uid>.<resourceVersion>, for a tombstone <uid>.<resourceVersion>.gone
    ce-type       dev.seaway.object.applied.v1, dev.seaway.object.deleted.v1, dev.seaway.sync.v1
    ce-subject    <namespace>/<name>, or <name>
    extensions    k8sgvk, k8suid, k8srv; hash: the digest of the projection
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import Final

from pydantic import BaseModel, ConfigDict

from common.contracts.events import CloudEvent
from common.contracts.objects import BY_RESOURCE, Projection, unstructured
from common.contracts.refs import ObjectRef, Resource, ResourceVersion

APPLIED: Final = "dev.seaway.object.applied.v1"
DELETED: Final = "dev.seaway.object.deleted.v1"
SYNC: Final = "dev.seaway.sync.v1"
TOMBSTONE_TTL: Final = 3600  # seconds; a follower that was away for longer takes a new snapshot


class StateError(ValueError):
    """An event at a state subject that is no state message."""


@dataclass(frozen=True, slots=True)
class ObjectApplied:
    """The newest version of an object. `digest` is that of `object` as plain data."""

    object: Projection
    version: ResourceVersion
    digest: str

    @property
    def ref(self) -> ObjectRef:
        """The object."""
        return self.object.ref

    @property
    def uid(self) -> str:
        """The object's identity: one name can be given twice."""
        return self.object.metadata.uid


@dataclass(frozen=True, slots=True)
class ObjectDeleted:
    """A tombstone. `version` is that of the last known state."""

    ref: ObjectRef
    uid: str
    version: ResourceVersion


class SyncMarker(BaseModel):
    """What the replica of one resource held when every message up to `through` was stored.

    `count` objects, whose fingerprints fold to `hash`. A follower that has seen no message of the resource after `through` must hold the
    same. `version` is the resource version of the list that the watcher began with, `transitions` counts changes of the leading watcher.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    watcher: str
    transitions: int = 0
    version: str
    count: int
    hash: str
    through: int
    time: str


def fold(fingerprints: Iterable[tuple[ObjectRef, str]]) -> str:
    """One fingerprint of many (object, digest) pairs, whatever their order: 128 bits, in hex."""
    return folded(reduce(xor, (fingerprint(ref, digest) for ref, digest in fingerprints), 0))


def fingerprint(ref: ObjectRef, digest: str) -> int:
    """What one pair adds to a fold, by exclusive or."""
    text = f"{ref.resource.group}\0{ref.resource.plural}\0{ref.namespace}\0{ref.name}\0{digest}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())


def folded(total: int) -> str:
    """How a fold is written."""
    return f"{total:032x}"


def applied_event(message: ObjectApplied, *, source: str, time: str) -> CloudEvent:
    """`message` in its envelope. `source` names the watcher, `time` is RFC 3339."""
    kind = f"{message.object.api_version}/{message.object.kind}"
    return CloudEvent(
        id=f"{message.uid}.{message.version}",
        source=source,
        type=APPLIED,
        subject=_name(message.ref),
        time=time,
        extensions={"k8sgvk": kind, "k8suid": message.uid, "k8srv": str(message.version), "hash": message.digest},
        data=message.object.to_data(),
    )


def deleted_event(message: ObjectDeleted, *, source: str, time: str) -> CloudEvent:
    """`message` in its envelope, without data."""
    return CloudEvent(
        id=f"{message.uid}.{message.version}.gone",
        source=source,
        type=DELETED,
        subject=_name(message.ref),
        time=time,
        extensions={"k8suid": message.uid, "k8srv": str(message.version)},
    )


def marker_event(resource: Resource, marker: SyncMarker, *, source: str) -> CloudEvent:
    """`marker` in its envelope."""
    id_ = f"{marker.watcher}.{marker.transitions}.{resource}.{marker.through}.{marker.time}"
    return CloudEvent(id=id_, source=source, type=SYNC, subject=str(resource), time=marker.time, data=marker.model_dump())


def read_state(ref: ObjectRef, event: CloudEvent) -> ObjectApplied | ObjectDeleted:
    """The message that `event` carries about `ref`, the object named by its subject. Raises StateError.

    Whoever can publish on the bus has skipped the API server, so the content is checked again: it must be a valid projection of the very
    object whose subject it stands at.
    """
    uid = event.extensions.get("k8suid", "")
    try:
        version = ResourceVersion(event.extensions.get("k8srv", ""))
        if event.type == DELETED:
            return ObjectDeleted(ref, uid, version)
        if event.type != APPLIED:
            raise StateError(f"{ref}: {event.type} is no state message")
        model = _model(ref, event)
        if event.extensions.get("k8sgvk", "").rpartition("/")[2] != model.kind:
            raise StateError(f"{ref}: the state on the bus is a {event.extensions.get('k8sgvk')}, and {model.kind} belongs here")
        projected = model.read(event.data)
    except StateError:
        raise
    except ValueError as error:
        raise StateError(f"{ref}: the state on the bus is not valid: {error}") from error
    if projected.ref != ref or projected.metadata.uid != uid:
        raise StateError(f"{ref}: the state on the bus speaks of {projected.ref} (uid {projected.metadata.uid})")
    return ObjectApplied(projected, version, event.extensions.get("hash", ""))


def read_marker(event: CloudEvent) -> SyncMarker:
    """The marker that `event` carries. Raises StateError."""
    if event.type != SYNC:
        raise StateError(f"{event.type} is no sync marker")
    try:
        return SyncMarker.model_validate(event.data)
    except ValueError as error:
        raise StateError(f"the sync marker is not valid: {error}") from error


def _model(ref: ObjectRef, event: CloudEvent) -> type[Projection]:
    known = BY_RESOURCE.get(ref.resource)
    if known is not None:
        return known
    api_version, _, kind = event.extensions.get("k8sgvk", "").rpartition("/")
    return unstructured(ref.resource, api_version, kind or "Unknown", namespaced=bool(ref.namespace))


def _name(ref: ObjectRef) -> str:
    return f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
