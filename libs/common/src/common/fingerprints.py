"""Fingerprints: what a copy of many objects amounts to, in one text that is kept current as objects come and go.

It is `common.contracts.state.fold`, and costs the same for a hundred thousand objects as for one: a sync marker says it, and a reader holds
its own copy against it, while changes are waiting.
"""

from common.contracts.refs import ObjectRef
from common.contracts.state import fingerprint, folded


class Fingerprints:
    """The fingerprints of the objects of one resource."""

    def __init__(self) -> None:
        self._each: dict[ObjectRef, int] = {}
        self._all = 0

    def __len__(self) -> int:
        return len(self._each)

    def __getitem__(self, ref: ObjectRef) -> int:
        return self._each[ref]

    def __contains__(self, ref: ObjectRef) -> bool:
        return ref in self._each

    @property
    def fold(self) -> str:
        """What they amount to."""
        return folded(self._all)

    def put(self, ref: ObjectRef, digest: str) -> None:
        """An object has this digest now."""
        self._set(ref, fingerprint(ref, digest))

    def keep(self, ref: ObjectRef, others: "Fingerprints") -> None:
        """An object is as it is in `others`."""
        self._set(ref, others[ref])

    def drop(self, ref: ObjectRef) -> None:
        """An object is not there any more."""
        self._all ^= self._each.pop(ref, 0)

    def _set(self, ref: ObjectRef, new: int) -> None:
        self._all ^= self._each.get(ref, 0) ^ new
        self._each[ref] = new
