"""The office of the leading watcher: what it does from the moment that it leads.

It learns what the stream holds, lets every source be relayed, publishes markers, and watches over itself. When the stream is lost or made
anew, it begins again from nothing, which costs one listing. A publisher that finds the work of a newer leader ends the process: it has been
fenced.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import Gauge

from common.backoff import Backoff
from common.bus.protocol import Bus, BusError
from common.bus.publisher import Fenced, StatePublisher, StreamLost
from common.bus.streams import STATE, ensure_streams
from common.contracts.subjects import STATE as STATE_ROOT
from common.contracts.subjects import SYNC as SYNC_ROOT
from common.contracts.subjects import encode
from common.groups import leaves
from common.runtime.reports import Reports, timestamp
from common.tries import Tries
from watcher.model import Observation
from watcher.relay import Relay
from watcher.settings import Settings

BACKOFF: Final = Backoff(first=0.2, most=5)
LEADER: Final = "leader"  # in whose name alerts are told: there is one at a time, and the next ends what it left
_LOOK: Final = 1.0  # seconds between two looks at ourselves
_PATIENCE: Final = 5.0  # seconds that something may be wrong before somebody is told

OBJECTS: Final = Gauge("seaway_watcher_objects", "Objects of a resource in the replica.", ["resource"])
UNREADABLE: Final = Gauge("seaway_watcher_unreadable", "Objects and files that cannot be published.")
BLOCKED: Final = Gauge("seaway_watcher_blocked_seconds", "How long the bus has not taken what is to be published.")

log = structlog.get_logger(__name__)


class Source(Protocol):
    """Where objects come from."""

    @property
    def trouble(self) -> str | None:
        """Why what was observed may be out of date, in a sentence; None if it is not."""
        ...

    def observe(self) -> AsyncGenerator[Observation]:
        """Everything now, then every change. Never ends by itself."""
        ...


Sources = Callable[[], Sequence[Source]]


class Office:
    """Keeps the replica, for as long as we lead."""

    def __init__(self, bus: Bus, settings: Settings, sources: Sources, reports: Reports) -> None:
        self._bus = bus
        self._settings = settings
        self._sources = sources
        self._reports = reports
        self._of_leader = reports.of(LEADER)
        self._publisher: StatePublisher | None = None
        self._relay: Relay | None = None
        self._running: Sequence[Source] = ()

    @property
    def trouble(self) -> str | None:
        """Why the replica may be out of date, in a sentence; None if it is not."""
        if self._publisher is None or self._relay is None:
            return "the replica on the bus is not known yet"
        blocked = self._blocked_for()
        if blocked > _PATIENCE and self._publisher.blocked is not None:
            return f"the bus does not take what is published: {self._publisher.blocked.reason}"
        return next((source.trouble for source in self._running if source.trouble is not None), None)

    @property
    def listed(self) -> int:
        """How many resources were listed."""
        return len(self._relay.counts) if self._relay else 0

    async def flush(self) -> None:
        """Waits until everything that was observed is stored."""
        if self._publisher is not None:
            await self._publisher.flush()

    async def hold(self, transitions: int) -> None:
        """Leads until cancelled. `transitions` counts changes of the leader. Raises Fenced."""
        clock = asyncio.get_running_loop().time
        tries = Tries(BACKOFF)
        fenced: Fenced | None = None
        while fenced is None:
            began = clock()
            try:
                await ensure_streams(self._bus, self._settings.stream_replicas)
                await self._lead(transitions)
            except* (StreamLost, BusError) as errors:
                reasons = list(leaves(errors))
                fenced = next((error for error in reasons if isinstance(error, Fenced)), None)
                log.warning("office.interrupted", reason="; ".join(sorted(str(error) for error in reasons)))
            if clock() - began > BACKOFF.most:
                tries.done()  # it led for a while, so this is another trouble than the last one
            if fenced is None:
                await tries.pause()
        raise fenced

    async def _lead(self, transitions: int) -> None:
        cluster = encode(self._settings.cluster)
        filters = (f"{STATE_ROOT}.{cluster}.>", f"{SYNC_ROOT}.{cluster}.>")
        publisher = StatePublisher(self._bus, STATE.name, filters, name="watcher")
        await publisher.learn()
        relay = Relay(
            publisher, cluster=self._settings.cluster, watcher=self._settings.instance, transitions=transitions, now=timestamp
        )
        self._publisher, self._relay, self._running = publisher, relay, self._sources()
        log.info("office.leading", known=len(publisher.known), transitions=transitions)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(publisher.run())
                group.create_task(relay.mark(self._settings.marker_interval))
                group.create_task(self._look_after())
                for source in self._running:
                    group.create_task(relay.follow(source.observe()))
        finally:
            self._publisher = self._relay = None
            self._running = ()

    async def _look_after(self) -> None:
        """Tells the world how we are doing; of trouble, when it has lasted for a while."""
        clock = asyncio.get_running_loop().time
        well = clock()
        self._of_leader.over("ReplicaBlocked", "critical")  # one who was killed could not end it
        while self._relay is not None:
            trouble = self.trouble
            well = clock() if trouble is None else well
            for resource, count in self._relay.counts.items():
                OBJECTS.labels(str(resource)).set(count)
            problems = self._relay.problems
            UNREADABLE.set(len(problems))
            BLOCKED.set(self._blocked_for())
            self._reports.problems(problems)
            self._of_leader.alert("ReplicaBlocked", "critical", trouble if clock() - well >= _PATIENCE else None)
            await asyncio.sleep(_LOOK)

    def _blocked_for(self) -> float:
        blocked = self._publisher.blocked if self._publisher else None
        return asyncio.get_running_loop().time() - blocked.since if blocked else 0.0
