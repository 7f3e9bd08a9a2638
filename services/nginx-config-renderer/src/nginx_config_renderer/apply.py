"""Apply: makes nginx's tables hold what they should, for ever.

A change is written to the journal and pushed at once; what comes while a push is under way goes into the next one, so nothing waits for a
timer and nothing queues up. Each push says from which revision of which instance it leads on. If nginx is another one, or was restarted, or
a push failed half-way, everything is compared by digests and only the difference is pushed. An entry that does not fit into nginx's memory
is offered again from time to time, and holds nothing else up.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import structlog

from common.backoff import Backoff
from common.tries import Tries
from nginx_config_renderer import metrics
from nginx_config_renderer.admin import Admin, AdminError, Stale
from nginx_config_renderer.journal import Journals
from nginx_config_renderer.ledger import Ledger
from nginx_config_renderer.plan import Entry, Write, chunks, digest, plan

BACKOFF: Final = Backoff(first=0.02, most=0.5, factor=2, jitter=0.5)
LOOK: Final = 0.5  # seconds between two looks at an nginx for which there is no news
OFFER: Final = 5.0  # seconds between two offers of what does not fit

log = structlog.get_logger(__name__)


class Wants(Protocol):
    """What nginx's tables should hold."""

    @property
    def entries(self) -> Mapping[Entry, str]:
        """All entries that are known."""
        ...

    @property
    def unknown(self) -> frozenset[Entry]:
        """Entries that nobody knows yet: nginx keeps what it has there."""
        ...


class Applier:
    """The one writer of an nginx's tables. `wants` is what they should hold; it may change between any two awaits."""

    def __init__(self, admin: Admin, journal: Journals, wants: Wants) -> None:
        self.revision = 0
        self.trouble: str | None = "nginx has not been compared yet"
        self.ledger = Ledger()
        self._admin = admin
        self._journal = journal
        self._wants = wants
        self._instance: str | None = None
        self._running: dict[Entry, str] = {}
        self._dirty: dict[Entry, float] = {}  # since when
        self._under_way: dict[Entry, float] = {}
        self._refused: dict[Entry, str] = {}
        self._offer_at = 0.0
        self._released = False
        self._compared = False
        self._partial = False  # whether the journal has entries that nobody knew when it was written
        self._wake = asyncio.Event()

    @property
    def settled(self) -> bool:
        """Whether nginx holds what it should, but for what does not fit."""
        return self._instance is not None and not self._dirty and not self._under_way

    @property
    def full(self) -> str | None:
        """What does not fit into nginx's tables, in a sentence."""
        if not self._refused:
            return None
        (table, key), reason = min(self._refused.items())
        others = f" and {len(self._refused) - 1} more" if len(self._refused) > 1 else ""
        return f"{table} {key[:120]}{others} found no room in nginx's shared memory ({reason}); raise --table-size"

    @property
    def unwritten(self) -> str | None:
        """Why the journal is not what nginx holds, in a sentence."""
        return self._journal.trouble

    def want(self, changed: Iterable[Entry]) -> None:
        """These entries are different now. Nothing is pushed before `release`."""
        now = asyncio.get_running_loop().time()
        for entry in changed:
            self._dirty.setdefault(entry, now)
        self._wake.set()

    def release(self) -> None:
        """What should be held is known to be complete: from now on nginx is made to hold it."""
        if not self._released:
            self._released = True
            self._wake.set()

    def hold(self) -> None:
        """What should be held is not known to be complete: nginx keeps what it has until the next `release`."""
        self._released = False
        self._instance = None

    async def run(self) -> None:
        """Applies until cancelled."""
        tries = Tries(BACKOFF)
        while True:
            try:
                await self._step()
                tries.done()
            except AdminError as error:
                self._lost(error)
                await tries.pause()

    async def _step(self) -> None:
        if not self._released:
            await self._wait(None)
        elif self._instance is None:
            await self._compare()
        elif self._refused and asyncio.get_running_loop().time() >= self._offer_at:
            self.want(self._refused)
            await self._push()
        elif self._dirty or self.ledger.waiting:
            await self._push()
        elif not await self._wait(LOOK):
            await self._look()

    async def _wait(self, seconds: float | None) -> bool:
        """Waits for news. Whether there are any."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                self._wake.clear()
                return True
        return False

    async def _look(self) -> None:
        """Whether nginx is still the one that we know."""
        status = await self._admin.status()
        for table, free in status.free.items():
            metrics.FREE.labels(table).set(free)
        if (status.instance, status.revision) != (self._instance, self.revision):
            raise Stale(f"nginx is at revision {status.revision} of instance {status.instance}")
        if self._journal.due:
            self._rewrite()

    async def _compare(self) -> None:
        status, self._running = await self._admin.digest()
        metrics.COMPARISONS.inc()
        unknown = self._wants.unknown
        entries = self._running.keys() | self._wants.entries.keys()
        differing = [entry for entry in entries - unknown if self._differs(entry)]
        if not self._released:  # held back meanwhile: what is wanted now is half of it
            return
        log.info("tables.compared", instance=status.instance, entries=len(self._running), differing=len(differing))
        self.revision = status.revision
        self._rewrite()
        self._dirty, self._under_way = {}, {}
        self.want(differing)
        self._instance, self.trouble = status.instance, None
        self._compared = True

    def _differs(self, entry: Entry) -> bool:
        return self._running.get(entry) != digest(self._wants.entries.get(entry))

    async def _push(self) -> None:
        self._under_way, self._dirty = self._dirty, {}
        self.ledger.begin()
        for chunk in chunks(plan(self._running, self._wants.entries, self._under_way)):
            await self._write(chunk)
        now = asyncio.get_running_loop().time()
        self._refused = {entry: reason for entry, reason in self._refused.items() if entry in self._wants.entries}
        if self._refused.keys() & self._under_way.keys():
            self._offer_at = now + OFFER
        for since in self._under_way.values():
            metrics.LATENCY.observe(now - since)
        self._under_way = {}
        if self._partial and not self._wants.unknown:
            self._rewrite()
        if self._instance is not None:
            for resource, seconds in self.ledger.end(time.time()):
                metrics.PROPAGATION.labels(resource.plural).observe(seconds)

    async def _write(self, chunk: tuple[Write, ...]) -> None:
        if self._instance is None:  # held back, or lost, while the chunk before was written
            return
        whole = self._journal.append(chunk, self.revision + 1)
        refused = await self._admin.apply(self._instance, self.revision, chunk)
        self.revision += 1
        for write in chunk:
            self._note(write, refused.get((write.table, write.key)))
        metrics.PUSHES.labels("applied").inc()
        metrics.REVISION.set(self.revision)
        if not whole:
            self._rewrite()

    def _rewrite(self) -> None:
        """Makes the journal what nginx should hold, unless that is not known now."""
        if self._released:
            unknown = self._wants.unknown
            self._journal.rewrite(self._wants.entries, self.revision, unknown)
            self._partial = bool(unknown)

    def _note(self, write: Write, refusal: str | None) -> None:
        """What became of a write. A refused entry is not there any more, not even as it was before."""
        entry, value = (write.table, write.key), digest(write.value)
        if refusal is not None:
            if entry not in self._refused:
                log.error("entry.refused", table=write.table, key=write.key[:120], reason=refusal)
            self._refused[entry] = refusal
            self._running.pop(entry, None)
            return
        self._refused.pop(entry, None)
        metrics.WRITES.labels(write.table).inc()
        if value is None:
            self._running.pop(entry, None)
        else:
            self._running[entry] = value

    def _lost(self, error: AdminError) -> None:
        """Whatever happened: compare again before the next push."""
        metrics.PUSHES.labels(type(error).__name__.lower()).inc()
        if self._instance is not None or (self.trouble != str(error) and self._compared):
            log.warning("tables.lost", reason=str(error), kind=type(error).__name__)
        self._instance = None
        self.trouble = str(error)
