"""The voice: what one edge of all tells the API server about the objects that they serve.

It writes the addresses into the status of our Ingresses, and an Event for each problem of an object, where `kubectl describe` shows it. Of
several edges the one that holds the Lease speaks; the others know the same and are silent. Serving does not depend on any of it. A problem
does not wait for addresses: where ten thousand Ingresses have to be written to, the Event of a bad one comes first.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from common.contracts.problems import Problem
from common.kube.errors import KubeError, NotFound
from common.kube.events import Recorder
from common.kube.status import Writer
from nginx_config_renderer.follow import Intake
from nginx_config_renderer.status import StatusWrite, writes
from nginx_config_renderer.wanted import Wanted

LOOK: Final = 30.0  # seconds between two looks without news
SLICE: Final = 200  # Ingresses that are looked at in one go
GATHER: Final = 0.2  # seconds in which news gather, so that a thousand changes are not a thousand looks at everything

Addresses = Callable[[], Awaitable[Sequence[str]]]

log = structlog.get_logger(__name__)


class Voice:
    """Tells what `wanted` knows. `addresses` says where the edges are reached."""

    def __init__(self, wanted: Wanted, intake: Intake, recorder: Recorder, writer: Writer, addresses: Addresses) -> None:
        self._wanted = wanted
        self._intake = intake
        self._recorder = recorder
        self._writer = writer
        self._addresses = addresses
        self._told: frozenset[Problem] = frozenset()
        self._shown: Sequence[str] = ()

    async def speak(self) -> None:
        """Tells it until cancelled."""
        self._told = frozenset()
        self._shown = ()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._complain())
            group.create_task(self._show())

    async def _complain(self) -> None:
        while True:
            self._intake.complaints.clear()
            if not self._wanted.awaited:
                self._tell_problems()
            await self._news(self._intake.complaints)

    async def _show(self) -> None:
        while True:
            self._intake.news.clear()
            if not self._wanted.awaited:
                await self._write_status()
            if not await self._news(self._intake.news):
                self._intake.unshown.add_all()

    async def _news(self, event: asyncio.Event) -> bool:
        """Waits for something to tell; while the replica is not complete, for that. Whether there is something new."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER if self._wanted.awaited else LOOK):
                await event.wait()
        await asyncio.sleep(GATHER)
        return event.is_set()

    def _tell_problems(self) -> None:
        now = frozenset(self._wanted.problems)
        for problem in sorted(now - self._told):
            uid = self._wanted.uid_of(problem.ref)
            if uid:
                self._recorder.record_problem(problem, uid)
        self._told = now

    async def _write_status(self) -> None:
        try:
            addresses = await self._addresses()
        except KubeError as error:
            log.warning("status.no_addresses", reason=str(error))
            return
        if not addresses:
            return
        if addresses != self._shown:
            self._intake.unshown.add_all()
        self._shown = addresses
        refs = self._intake.unshown.take(lambda: self._wanted.ingress_refs)
        for at in range(0, len(refs), SLICE):
            for write in writes(self._wanted.ours(self._wanted.ingresses(refs[at : at + SLICE])), addresses):
                await self._write(write)
            await asyncio.sleep(0)  # changes of routes do not wait for a look at everything

    async def _write(self, write: StatusWrite) -> None:
        try:
            await self._writer.patch_status(write.ref, write.status)
        except NotFound:
            return  # it was deleted a moment ago
        except KubeError as error:
            log.warning("status.not_written", ingress=str(write.ref), reason=str(error))
            self._intake.unshown.add((write.ref,))
        else:
            log.info("status.written", ingress=str(write.ref))
