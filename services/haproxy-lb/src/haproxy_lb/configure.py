"""Configure: HAProxy's files agree with what it does, and it begins anew when it must run with others.

A HAProxy that comes back has at once what it had, because each change is written to disk too, soon. Another frame, or more slots, can
only be had by beginning anew: HAProxy starts a process beside the old one, which finishes what it has begun. That is counted. Where HAProxy
does not take it, that is told until it does, it is tried less and less often, and the files are again those with which it can start.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import structlog

from common.backoff import Backoff
from common.tries import Tries
from haproxy_lb import effects, master
from haproxy_lb.desire import Desired
from haproxy_lb.files import BadConfigurationError, Files
from haproxy_lb.model import Peer
from haproxy_lb.render import fingerprint
from haproxy_lb.rules import TABLES
from haproxy_lb.runtime import Lost, Process, Runtime
from haproxy_lb.slots import Layout, Slot, fitting

NOTHING: Final = Desired({name: {} for name in TABLES}, {}, {})
_TAKEN: Final = 20.0  # seconds for a reload to show
_AGAIN: Final = Backoff(first=60.0, most=900.0, factor=2, jitter=0.2)  # before what did not come into force is tried again
_RETRY: Final = 10.0  # seconds before what could not be written is tried again
_REST: Final = 1.0  # seconds between two writings, at least
_LOOK: Final = 0.02

log = structlog.get_logger(__name__)


class Configuration:
    """The configuration of the HAProxy that `runtime` talks to and whose master listens on `master_socket`."""

    def __init__(self, files: Files, runtime: Runtime, master_socket: Path) -> None:
        self.frame = self._settled = files.frame
        self._files = files
        self._runtime = runtime
        self._master = master_socket
        self._lock = asyncio.Lock()
        self._news = asyncio.Event()
        self._latest: tuple[Layout, Desired] = (files.frame.slots, NOTHING)
        self.written: frozenset[Slot] = frozenset()  # in these, HAProxy may begin with somebody's servers
        self._unwritten: str | None = None
        self._untaken: str | None = None
        self._refused: tuple[str, float] = ("", 0.0)
        self._refusals = Tries(_AGAIN)
        self._goal: tuple[Layout, str] = ({}, "")

    @property
    def trouble(self) -> str | None:
        """Why the files are not what they should be, or HAProxy does not run with them, in a sentence."""
        return self._unwritten or self._untaken

    async def begin(self) -> None:
        """Where there is nothing that HAProxy can start with, it gets something."""
        if await self._files.good():
            self.written = await self._files.given()
        else:
            await self._write()

    def meet(self, peers: Collection[Peer]) -> None:
        """These share affinity; without any, those of the frame that we began with. It is in force after the next `renew`."""
        frame = self._settled.among(peers)
        if frame != self.frame:
            self.frame = frame
            self._goal = ({}, "")

    def note(self, layout: Layout, desired: Desired) -> None:
        """Takes what HAProxy does now, which is written soon."""
        self._latest = (layout, desired)
        self._news.set()

    async def keep(self) -> None:
        """Writes, until cancelled; and rests ten times as long as that takes, so that it is never most of what we do. What could not be
        written is tried again.
        """
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY if self._unwritten else None):
                    await self._news.wait()
            self._news.clear()
            began = loop.time()
            await self._write()
            await asyncio.sleep(max(_REST, 10 * (loop.time() - began)))

    async def renew(self, process: Process, running: Layout, needed: Layout, then: Callable[[Layout], Desired]) -> bool:
        """Has HAProxy begin anew if `process` runs with another configuration than it should; `then` is what the next one begins with.
        Whether another process may answer now.
        """
        goal = fitting(self.frame.slots, running, needed)
        name = self._name(goal)
        if name == process.fingerprint:
            self._taken()
            return False
        if name == self._refused[0] and asyncio.get_running_loop().time() < self._refused[1]:
            return False
        # From here on nobody writes what the next one shall not begin with.
        before, self._latest = self._latest, (goal, then(goal))
        frame, self._files.frame = self._files.frame, self.frame
        fault, told = None, await self._write()
        if told:
            fault = await self._reload(name, "configuration" if goal == running else "slots")
        if not told or fault:
            self._latest, self._files.frame = before, frame
            self._news.set()
            self._refuse(name, fault or str(self._unwritten))
        else:
            self._taken()
        return told

    def _name(self, goal: Layout) -> str:
        if self._goal[0] != goal:
            self._goal = (goal, fingerprint(self.frame, goal))
        return self._goal[1]

    async def _reload(self, name: str, cause: str) -> str | None:
        """Has HAProxy begin with what is on disk, whose name that is. None if it did, or why not."""
        effects.RELOADS.labels(cause).inc()
        log.info("haproxy.reload", cause=cause, slots=sum(self._latest[0].values()))
        try:
            await master.reload(self._master)
            await self._shown(name)
        except Lost as error:
            return f"HAProxy did not begin anew and goes on as it was: {error}; free what it lacks, it is tried again by itself"
        return None

    async def _shown(self, name: str) -> None:
        """Waits for a HAProxy that runs with that configuration. Raises Lost if none comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN):
                while True:
                    self._runtime.close()
                    with contextlib.suppress(Lost):
                        process = await self._runtime.process()
                        if process.fingerprint == name and not process.stopping:
                            return
                    if await master.failed(self._master):
                        break
                    await asyncio.sleep(_LOOK)
        raise Lost("its own log says why")

    def _taken(self) -> None:
        """HAProxy runs with what it should."""
        self._untaken, self._refused = None, ("", 0.0)
        self._refusals.done()

    def _refuse(self, name: str, reason: str) -> None:
        """HAProxy does not run with the configuration of that name, which is tried again after a while."""
        if self._untaken is None:
            log.error("reload.refused", reason=reason)
        self._untaken = reason
        self._refused = (name, asyncio.get_running_loop().time() + self._refusals.delay())

    async def _write(self) -> bool:
        """Puts the latest configuration on disk. False if HAProxy would not take it."""
        async with self._lock:
            layout, desired = self._latest
            before, self.written = self.written, self.written | desired.slots.keys()
            try:
                await self._files.write(layout, desired)
            except (BadConfigurationError, OSError) as error:
                if self._unwritten is None:
                    log.error("configuration.refused", reason=str(error))
                self._unwritten = f"HAProxy's configuration cannot be written: {error}"
                self.written = before
                return False
            self.written = frozenset(desired.slots)
        self._unwritten = None
        return True
