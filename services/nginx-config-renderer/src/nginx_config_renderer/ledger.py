"""Ledger: which version of each Ingress nginx holds, and how long versions took to get there. Pure.

A version is noted when it comes from the bus. It is *held* when nginx has every entry that is different by it, which is when the push is
done that took all that had changed until then. Its way there is the time from when the watcher published it, which is as soon as the API
server told of it, to that moment; the clocks of two machines have a part in it. A version that another one overtook before it was held is
not counted, nor is one that stood on the bus before we came.
"""

import datetime as dt
from collections.abc import Iterable

from common.contracts.objects import Ingress
from common.contracts.refs import ObjectRef, Resource
from common.replica import Sighting


class Ledger:
    """What was noted, what is being pushed, and what is held."""

    def __init__(self) -> None:
        self._held: dict[ObjectRef, str] = {}
        self._newest: dict[ObjectRef, str] = {}
        self._noted: dict[ObjectRef, tuple[Sighting, bool]] = {}
        self._under_way: dict[ObjectRef, tuple[Sighting, bool]] = {}

    @property
    def waiting(self) -> bool:
        """Whether there are versions that no push has brought to its end."""
        return bool(self._noted or self._under_way)

    def note(self, sightings: Iterable[Sighting], *, live: bool) -> None:
        """These came from the bus; if not `live`, they stood there before."""
        for sighting in sightings:
            self._noted[sighting.ref] = (sighting, live)
            if sighting.ref.resource == Ingress.resource:
                self._newest[sighting.ref] = sighting.version

    def begin(self) -> None:
        """A push takes all that was noted. One that was begun and never ended goes with it."""
        self._under_way |= self._noted
        self._noted = {}

    def end(self, now: float) -> list[tuple[Resource, float]]:
        """The push is done, at `now` in seconds since 1970: what is held by it, and how many seconds that took."""
        took: list[tuple[Resource, float]] = []
        for ref, (sighting, live) in self._under_way.items():
            since = _seconds(sighting.time) if live else None
            if since is not None:
                took.append((ref.resource, max(0.0, now - since)))
            if ref.resource == Ingress.resource:
                self._settle(ref, sighting.version)
        self._under_way = {}
        return took

    def held(self, ref: ObjectRef) -> str:
        """The resourceVersion of an Ingress that nginx has; empty if it has none."""
        return self._held.get(ref, "")

    def newest(self, ref: ObjectRef) -> str:
        """The resourceVersion of an Ingress that came last."""
        return self._newest.get(ref, "")

    def _settle(self, ref: ObjectRef, version: str) -> None:
        if version:
            self._held[ref] = version
            return
        self._held.pop(ref, None)
        if not self._newest.get(ref):
            self._newest.pop(ref, None)


def _seconds(time: str) -> float | None:
    try:
        return dt.datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None
