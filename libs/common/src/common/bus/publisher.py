"""Writing the compacted log: every subject ends at its newest version, and nobody overwrites what he has not seen.

    publisher = StatePublisher(bus, STATE.name, filters, name="watcher")
    await publisher.learn()
    group.create_task(publisher.run())
    publisher.put(subject, headers, body)
    await publisher.flush()

A subject has at most one write under way; versions that come meanwhile replace each other, and the last one is written next. Each write
names the sequence that the subject's last message must have, so a watcher that lost its office cannot write over its successor. A write
that the bus does not take is tried again for ever: `blocked` says for how long and why.

    BusError
    ├── Fenced        somebody else wrote a newer version: leave, another watcher leads
    └── StreamLost    the stream is gone or was made anew: ensure it, make a new publisher, publish everything again
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from common.backoff import Backoff
from common.bus import metrics
from common.bus.follower import Follower
from common.bus.protocol import (
    HEADER_KV_OPERATION,
    HEADER_MESSAGE_ID,
    HEADER_TTL,
    Bus,
    BusError,
    Conflict,
    StreamMissing,
    TooLarge,
)
from common.contracts.refs import ResourceVersion
from common.contracts.state import TOMBSTONE_TTL
from common.snapshot import Replaced

HEADER_ID: Final = "ce-id"
HEADER_UID: Final = "ce-k8suid"
HEADER_VERSION: Final = "ce-k8srv"
HEADER_HASH: Final = "ce-hash"

BACKOFF: Final = Backoff(first=0.05, most=2.5, factor=2, jitter=1)
IN_FLIGHT: Final = 64
_REMEMBERED: Final = 16
_CHECK_EVERY: Final = 5.0  # seconds between two looks at the stream, for a publisher that has nothing to write

log = structlog.get_logger(__name__)


class Fenced(BusError):
    """Somebody else wrote a newer version of a subject that we thought to be ours."""


class StreamLost(BusError):
    """The stream is not there any more, or it is another one of the same name."""


@dataclass(frozen=True, slots=True)
class Known:
    """The last message of a subject, as far as a publisher must know it."""

    sequence: int
    id: str
    uid: str
    version: str
    hash: str
    gone: bool


@dataclass(frozen=True, slots=True)
class Blocked:
    """Writes that the bus does not take: the last reason, when it began (by the loop's clock), and how many subjects wait for it."""

    reason: str
    since: float
    subjects: int


@dataclass(frozen=True, slots=True)
class _Write:
    headers: Mapping[str, str]
    body: bytes

    def known(self, sequence: int) -> Known:
        return _known(self.headers, sequence, gone=HEADER_KV_OPERATION in self.headers)


class StatePublisher:
    """The one writer of its subjects. See the module."""

    def __init__(
        self,
        bus: Bus,
        stream: str,
        filters: Sequence[str],
        *,
        name: str,
        tombstone_ttl: int = TOMBSTONE_TTL,
        backoff: Backoff = BACKOFF,
        check_every: float = _CHECK_EVERY,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._filters = tuple(filters)
        self._name = name
        self._tombstone_ttl = tombstone_ttl
        self._backoff = backoff
        self._check_every = check_every
        self._created = ""
        self._known: dict[str, Known] = {}
        self._waiting: dict[str, _Write] = {}
        self._busy: set[str] = set()
        self._unanswered: dict[str, deque[str]] = {}  # ids that may have been stored, though nobody said so
        self._blocked: dict[str, str] = {}
        self._blocked_since = 0.0
        self._queue: asyncio.Queue[str] = asyncio.Queue()  # holds each subject once at most
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def known(self) -> Mapping[str, Known]:
        """The last message of each subject, tombstones among them, as far as this publisher knows."""
        return self._known

    @property
    def pending(self) -> int:
        """How many subjects have a version that is not stored yet."""
        return len(self._busy)

    @property
    def blocked(self) -> Blocked | None:
        """What keeps writes from being stored, if anything does."""
        if not self._blocked:
            return None
        return Blocked(next(reversed(self._blocked.values())), self._blocked_since, len(self._blocked))

    async def learn(self) -> Mapping[str, Known]:
        """Reads what the stream holds, headers only, before `run`. Raises StreamMissing."""
        follower = Follower(
            self._bus, self._stream, self._filters, name=f"{self._name}-learn", headers_only=True, wait_for_stream=False
        )
        async with follower:
            async for update in follower:
                if isinstance(update, Replaced):
                    messages = (*update.messages, *update.tombstones)
                    self._known = {m.subject: _known(m.headers, m.sequence, gone=m.gone) for m in messages}
                    self._created = follower.created
                    break
        return self._known

    def put(self, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """Makes this the version of `subject` to be stored next. Raises TooLarge, so that a reference can be published instead."""
        if len(body) > self._bus.max_payload:
            raise TooLarge(
                f"the body for {subject} has {len(body)} bytes, and the bus takes {self._bus.max_payload}; raise max_payload"
            )
        self._waiting[subject] = _Write({HEADER_MESSAGE_ID: headers[HEADER_ID], **headers}, body)
        if subject not in self._busy:
            self._busy.add(subject)
            self._queue.put_nowait(subject)
            self._quiet.clear()
        metrics.PUBLISH_PENDING.labels(self._stream).set(len(self._busy))

    def remove(self, subject: str, headers: Mapping[str, str]) -> None:
        """Makes a tombstone the version of `subject` to be stored next; it goes away by itself."""
        self.put(subject, {**headers, HEADER_KV_OPERATION: "PURGE", HEADER_TTL: str(self._tombstone_ttl)}, b"")

    async def flush(self) -> None:
        """Waits until nothing is pending."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Stores what is put, until cancelled. Raises Fenced or StreamLost."""
        ended: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(self._worker())
                group.create_task(self._watch_stream())
        except* (Fenced, StreamLost) as errors:
            ended = errors.exceptions[0]
        if ended is not None:
            raise ended

    async def _worker(self) -> None:
        while True:
            subject = await self._queue.get()
            attempt = 0
            while subject in self._waiting:
                attempt = 0 if await self._store(subject) else attempt + 1
                if attempt:
                    await asyncio.sleep(self._backoff.delay(attempt - 1, random.random()))  # noqa: S311 jitter
            self._busy.discard(subject)
            metrics.PUBLISH_PENDING.labels(self._stream).set(len(self._busy))
            if not self._busy:
                self._quiet.set()

    async def _store(self, subject: str) -> bool:
        """One try to store the newest version of `subject`. False: try again, later."""
        write = self._waiting.pop(subject)
        known = self._known.get(subject)
        if _unchanged(known, write):
            self._unblock(subject)
            return True
        expected = known.sequence if known else 0
        try:
            stored = await self._bus.publish(subject, write.body, write.headers, expected_last=expected)
            if stored.duplicate:
                return await self._settle(subject, write, known)
        except Conflict:
            return await self._settle(subject, write, known)
        except (Fenced, StreamLost):
            raise
        except BusError as error:
            self._unanswered.setdefault(subject, deque(maxlen=_REMEMBERED)).append(write.headers[HEADER_ID])
            await self._postpone(subject, write, error)
            return False
        self._stored(subject, write.known(stored.sequence))
        return True

    async def _settle(self, subject: str, write: _Write, known: Known | None) -> bool:
        """The subject may hold something else than we thought. Looks, and decides between done, again, and fenced."""
        try:
            last = await self._bus.get_last(self._stream, subject)
        except BusError as error:
            await self._postpone(subject, write, error)
            return False
        found = _known(last.headers, last.sequence, gone=last.gone) if last else None
        if found is not None and _same(found, write):
            self._stored(subject, found)
            return True
        if not self._may_replace(subject, found, write, known):
            await self._check_stream()
            raise Fenced(f"{subject} holds {found.id if found else 'nothing'} instead of what we knew; another watcher leads")
        if (found.sequence if found else 0) == (known.sequence if known else 0):
            # Nobody wrote: an earlier write is still under way, or the id was used within the window of duplicates.
            write = _Write({name: value for name, value in write.headers.items() if name != HEADER_MESSAGE_ID}, write.body)
        self._adopt(subject, found)
        self._waiting.setdefault(subject, write)
        return False

    def _may_replace(self, subject: str, found: Known | None, write: _Write, known: Known | None) -> bool:
        """Whether `found`, which a write ran into, gives way to it."""
        if found is None:
            return known is None or known.gone  # the tombstone's time is over
        if known is not None and found.sequence == known.sequence:
            return True
        return found.id in self._unanswered.get(subject, ()) or _older(found, write.known(0))

    def _adopt(self, subject: str, found: Known | None) -> None:
        if found is None:
            self._known.pop(subject, None)
        else:
            self._known[subject] = found

    def _stored(self, subject: str, known: Known) -> None:
        self._known[subject] = known
        self._unanswered.pop(subject, None)
        self._unblock(subject)
        metrics.PUBLISHED.labels(self._stream).inc()

    async def _postpone(self, subject: str, write: _Write, error: BusError) -> None:
        """Puts the write back unless a newer version waits already."""
        self._waiting.setdefault(subject, write)
        metrics.PUBLISH_RETRIES.labels(self._stream, type(error).__name__).inc()
        if not self._blocked:
            self._blocked_since = asyncio.get_running_loop().time()
            log.warning("publisher.blocked", stream=self._stream, reason=str(error))
        self._blocked[subject] = str(error)
        await self._check_stream()

    def _unblock(self, subject: str) -> None:
        if self._blocked.pop(subject, None) is not None and not self._blocked:
            log.info("publisher.unblocked", stream=self._stream)

    async def _watch_stream(self) -> None:
        while True:
            await asyncio.sleep(self._check_every)
            await self._check_stream()

    async def _check_stream(self) -> None:
        try:
            state = await self._bus.stream_state(self._stream)
        except StreamMissing as error:
            raise StreamLost(f"stream {self._stream} is gone") from error
        except BusError:
            return
        if state.created != self._created:
            raise StreamLost(f"stream {self._stream} was made anew at {state.created}")


def _known(headers: Mapping[str, str], sequence: int, *, gone: bool) -> Known:
    id_, uid, version, hash_ = (headers.get(name, "") for name in (HEADER_ID, HEADER_UID, HEADER_VERSION, HEADER_HASH))
    return Known(sequence, id_, uid, version, hash_, gone)


def _unchanged(known: Known | None, write: _Write) -> bool:
    """Whether the stream holds this already: the same object with the same content, or nothing where nothing shall be."""
    new = write.known(0)
    if new.gone:
        return known is None or known.gone
    return known is not None and not known.gone and new.hash != "" and (known.uid, known.hash) == (new.uid, new.hash)


def _same(found: Known, write: _Write) -> bool:
    new = write.known(0)
    return (found.id, found.hash, found.gone) == (new.id, new.hash, new.gone)


def _older(found: Known, new: Known) -> bool:
    """Whether `found` is an older state of the object than `new`; of two states of one version the tombstone is the newer."""
    try:
        return (ResourceVersion(found.version), found.gone) < (ResourceVersion(new.version), new.gone)
    except ValueError:
        return False
