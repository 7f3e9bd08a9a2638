"""Following a compacted log: `common.snapshot.Cursor`, driven by a bus.

    async with Follower(bus, STATE, filters, name="nginx") as follower:
        async for update in follower:
            match update:
                case Replaced(messages): store.replace(messages)
                case Changed(messages): store.apply(messages)

Nothing comes before the copy is complete, and a `Replaced` comes again whenever it had to be taken anew; losses of the bus in between are
the follower's own affair. All that is already there comes in one update, so a slow consumer gets fewer and larger ones; no delay is added.
While the consumer works nothing is read ahead but what the reader's window holds.

That the copy is complete says nothing of whether the watcher is: include the sync markers' filter, and ask `markers`.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Self

import structlog

from common.backoff import Backoff
from common.bus import metrics
from common.bus.protocol import Bus, BusError, Message, Reader, Start, StreamMissing, Unavailable
from common.contracts.state import TOMBSTONE_TTL
from common.contracts.subjects import SYNC
from common.snapshot import Changed, Cursor, Listing, Open, Phase, Replaced
from common.snapshot import List as ListAgain

# A reader that is late serves old routes, and asking once a second costs a server little.
BACKOFF: Final = Backoff(first=0.1, most=1, factor=2, jitter=1)
_MARKER: Final = f"{SYNC}."
_HEALTHY_AFTER: Final = 60.0  # seconds of following after which the next loss counts as a first one

Update = Replaced[Message] | Changed[Message]
Output = Open | ListAgain | Update | None

log = structlog.get_logger(__name__)


class Follower:
    """An endless iterator of updates. See the module."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        filters: Sequence[str],
        *,
        name: str,
        headers_only: bool = False,
        wait_for_stream: bool = True,
        tombstone_ttl: float = TOMBSTONE_TTL,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self.name = name
        self._bus = bus
        self._stream = stream
        self._filters = tuple(filters)
        self._headers_only = headers_only
        self._wait_for_stream = wait_for_stream
        self._backoff = backoff
        self._cursor: Cursor[Message] = Cursor(tombstone_ttl)
        self._markers: dict[str, Message] = {}
        self._reader: Reader | None = None
        self._losses = 0
        self._updates = self._run()
        self._measure()

    @property
    def phase(self) -> Phase:
        """What the follower is doing."""
        return self._cursor.phase

    @property
    def synced(self) -> bool:
        """Whether the consumer was given a complete copy."""
        return self._cursor.synced

    @property
    def connected(self) -> bool:
        """Whether the copy is kept up to date now."""
        return self._reader is not None and self.phase is Phase.FOLLOWING

    @property
    def behind(self) -> int:
        """How many messages are known to be ahead."""
        return self._reader.behind if self._reader is not None else 0

    @property
    def missing(self) -> int:
        """How many subjects the snapshot still waits for."""
        return self._cursor.missing

    @property
    def created(self) -> str:
        """Names the incarnation of the stream, as `StreamState.created` does."""
        return self._cursor.created

    @property
    def markers(self) -> Mapping[str, Message]:
        """The newest sync marker of each subject that was handed over. A resource without one is not known to be complete."""
        return self._markers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._updates.aclose()

    def __aiter__(self) -> AsyncIterator[Update]:
        return self._updates

    async def _run(self) -> AsyncGenerator[Update, None]:
        while True:
            began = _now()
            try:
                async with aclosing(self._read(self._cursor.lost(began))) as updates:
                    async for update in updates:
                        self._note(update)
                        yield update
            except BusError as error:
                if isinstance(error, StreamMissing) and not self._wait_for_stream:
                    raise
                if _now() - began > _HEALTHY_AFTER:
                    self._losses = 0
                await self._pause(error)

    async def _read(self, opening: Open) -> AsyncGenerator[Update, None]:
        """The updates of one reader. Ends when the cursor asks for another one, raises BusError when the reader is lost."""
        start = Start(opening.sequence)
        created = (await self._bus.stream_state(self._stream)).created
        async with self._bus.read(self._stream, self._filters, start, name=self.name, headers_only=self._headers_only) as reader:
            self._reader = reader
            try:
                # Listed after the reader was opened: what comes later is delivered, and what was there before is listed.
                listing = await self._list()
                if listing.created != created:  # what the reader holds may be of the old one
                    raise Unavailable(f"stream {self._stream} was made anew while a reader was opened")
                output: Output = self._cursor.listed(listing)
                while not isinstance(output, Open):
                    if isinstance(output, ListAgain):
                        output = self._cursor.listed(await self._list())
                        continue
                    if output is not None:
                        yield output
                    batch = await reader.batch()
                    output = self._cursor.received(batch, reader.behind, _now()) if batch else self._cursor.idle(_now())
                    metrics.FOLLOWER_BEHIND.labels(self.name).set(reader.behind)
            finally:
                self._reader = None

    async def _list(self) -> Listing:
        subjects: set[str] = set()
        if self.phase is Phase.SNAPSHOT:
            for each in self._filters:
                subjects.update(await self._bus.subjects(self._stream, each))
        state = await self._bus.stream_state(self._stream)
        return Listing(state.created, state.last_sequence, subjects)

    async def _pause(self, error: BusError) -> None:
        metrics.READERS_LOST.labels(self.name).inc()
        self._measure()
        delay = self._backoff.delay(self._losses, random.random())  # noqa: S311 jitter
        self._losses += 1
        # Who starts before the stream is made has lost nothing.
        level = logging.INFO if isinstance(error, StreamMissing) and not self._markers else logging.WARNING
        log.log(level, "follower.lost", follower=self.name, stream=self._stream, reason=str(error), again_in=round(delay, 2))
        await asyncio.sleep(delay)

    def _note(self, update: Update) -> None:
        if isinstance(update, Replaced):
            self._markers = {}
            metrics.SNAPSHOTS.labels(self.name).inc()
            log.info("follower.synced", follower=self.name, stream=self._stream, count=len(update.messages))
        for message in update.messages:
            if message.subject.startswith(_MARKER):
                self._markers[message.subject] = message
        self._measure()

    def _measure(self) -> None:
        metrics.FOLLOWER_SYNCED.labels(self.name).set(int(self.synced))


def _now() -> float:
    return asyncio.get_running_loop().time()
