"""The relay: makes the replica of each resource equal to what its source observes.

It remembers what the replica holds, or will hold once everything that was handed to the publisher is stored; listings are compared with
that. So an object that came and went while the bus was away leaves nothing behind.

After a listing, and from time to time, it publishes a sync marker a resource: how many objects the replica holds and the fold of their
digests. A resource gets its first marker when its first listing is stored, so a reader knows from which moment on the content is fresh.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Protocol

import structlog

from common.bus.protocol import TooLarge
from common.bus.publisher import Known
from common.codec import encode
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource, ResourceVersion
from common.contracts.state import (
    ObjectDeleted,
    SyncMarker,
    applied_event,
    deleted_event,
    marker_event,
)
from common.contracts.subjects import parse_state, state_subject, sync_subject
from common.fingerprints import Fingerprints
from watcher.diff import Held
from watcher.model import Faults, Listed, Observation
from watcher.plan import Message, plan

log = structlog.get_logger(__name__)


class Publisher(Protocol):
    """What the relay needs of `common.bus.publisher.StatePublisher`."""

    @property
    def known(self) -> Mapping[str, Known]:
        """The last message of each subject."""
        ...

    @property
    def pending(self) -> int:
        """How many subjects have a version that is not stored yet."""
        ...

    def put(self, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """Stores a version."""
        ...

    def remove(self, subject: str, headers: Mapping[str, str]) -> None:
        """Stores a tombstone."""
        ...

    async def flush(self) -> None:
        """Waits until nothing is pending."""
        ...


class Relay:
    """One leadership of a watcher. `now` gives the time as an RFC 3339 text; `watcher` names this instance."""

    def __init__(self, publisher: Publisher, *, cluster: str, watcher: str, transitions: int, now: Callable[[], str]) -> None:
        self._publisher = publisher
        self._cluster = cluster
        self._watcher = watcher
        self._source = f"/clusters/{cluster}/watcher"
        self._transitions = transitions
        self._now = now
        self._held: dict[Resource, dict[ObjectRef, Held]] = defaultdict(dict)
        self._prints: dict[Resource, Fingerprints] = defaultdict(Fingerprints)
        self._listed: dict[Resource, str] = {}
        self._due: set[Resource] = set()
        self._wake = asyncio.Event()
        self._unreadable: dict[ObjectRef, Problem] = {}
        self._faults: tuple[Problem, ...] = ()
        for subject, known in publisher.known.items():
            if subject.startswith("state.") and not known.gone:
                self._hold(parse_state(subject).ref, Held(known.uid, ResourceVersion(known.version), known.hash))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What cannot be published, and why, sorted."""
        return tuple(sorted({*self._unreadable.values(), *self._faults}))

    @property
    def counts(self) -> dict[Resource, int]:
        """How many objects of each listed resource the replica holds."""
        return {resource: len(self._held[resource]) for resource in self._listed}

    async def follow(self, observations: AsyncGenerator[Observation]) -> None:
        """Takes what a source observes, for as long as it does."""
        async with aclosing(observations) as source:
            async for observation in source:
                self.take(observation)

    def take(self, observation: Observation) -> None:
        """Publishes what `observation` asks for."""
        if isinstance(observation, Faults):
            self._faults = observation.problems
            return
        resource = observation.model.resource
        wanted = plan(observation, self._held[resource])
        for ref, problem in wanted.problems.items():
            if problem is None:
                self._unreadable.pop(ref, None)
            else:
                self._unreadable[ref] = problem
        for message in wanted.messages:
            self._publish(message)
        if isinstance(observation, Listed):
            self._listed[resource] = observation.version
            self._due.add(resource)
            self._wake.set()
            log.debug("relay.listed", resource=str(resource), objects=len(self._held[resource]), published=len(wanted.messages))

    async def mark(self, every: float) -> None:
        """Publishes the markers of what was listed as soon as it is stored, and all of them each `every` seconds."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._wake.wait()
            while self._publisher.pending:
                await self._publisher.flush()
            # Nothing is awaited from here on, so what is held is what is stored.
            due = self._due or self._listed.keys()
            through = max((known.sequence for known in self._publisher.known.values()), default=0)
            for resource in sorted(due):
                encoded = encode(marker_event(resource, self._marker(resource, through), source=self._source))
                self._publisher.put(sync_subject(self._cluster, resource), encoded.headers, encoded.body)
            self._due = set()
            self._wake.clear()

    def _marker(self, resource: Resource, through: int) -> SyncMarker:
        held = self._prints[resource]
        return SyncMarker(
            watcher=self._watcher,
            transitions=self._transitions,
            version=self._listed[resource],
            count=len(held),
            hash=held.fold,
            through=through,
            time=self._now(),
        )

    def _publish(self, message: Message) -> None:
        subject = state_subject(self._cluster, message.ref)
        held = self._held[message.ref.resource]
        if isinstance(message, ObjectDeleted):
            held.pop(message.ref, None)
            self._prints[message.ref.resource].drop(message.ref)
            self._publisher.remove(subject, encode(deleted_event(message, source=self._source, time=self._now())).headers)
            return
        known = held.get(message.ref)
        if known is not None and (known.uid, known.digest) == (message.uid, message.digest):
            return
        encoded = encode(applied_event(message, source=self._source, time=self._now()))
        try:
            self._publisher.put(subject, encoded.headers, encoded.body)
        except TooLarge as error:
            self._unreadable[message.ref] = Problem(message.ref, "TooLarge", str(error))
            return
        self._hold(message.ref, Held(message.uid, message.version, message.digest))

    def _hold(self, ref: ObjectRef, held: Held) -> None:
        self._held[ref.resource][ref] = held
        self._prints[ref.resource].put(ref, held.digest)
