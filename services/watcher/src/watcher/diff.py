"""Diff: what must be published so that the replica of one resource equals a listing.

The listing is the truth, since it is a consistent read of the API server: what differs from it is replaced, whatever its version, and
what it does not name gets a tombstone. This is where deletions that nobody saw are found.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.contracts.refs import ObjectRef, ResourceVersion
from common.contracts.state import ObjectApplied, ObjectDeleted


@dataclass(frozen=True, slots=True)
class Held:
    """What the replica holds of an object."""

    uid: str
    version: ResourceVersion
    digest: str


def diff(
    held: Mapping[ObjectRef, Held], listed: Iterable[ObjectApplied], keep: frozenset[ObjectRef] = frozenset()
) -> tuple[ObjectApplied | ObjectDeleted, ...]:
    """Tombstones first, then new and changed objects, each sorted by name. Objects in `keep` are left as they are."""
    wanted = {message.ref: message for message in listed}
    gone = (ObjectDeleted(ref, old.uid, old.version) for ref, old in held.items() if ref not in wanted and ref not in keep)
    put = (message for ref, message in wanted.items() if _differs(held.get(ref), message))
    return (*sorted(gone, key=lambda message: message.ref), *sorted(put, key=lambda message: message.ref))


def _differs(old: Held | None, new: ObjectApplied) -> bool:
    return old is None or (old.uid, old.digest) != (new.uid, new.digest)
