"""Apply: makes HAProxy and the kernel have what they should, for ever.

One task writes, over one connection, and each answer is looked at. It knows what HAProxy holds by what HAProxy took, so a change costs
the commands that it needs and no reading. When HAProxy is another one, does not answer, or does not do as its rules say, everything is
read back and only the difference is mended.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import structlog

from common.backoff import Backoff
from common.tries import Tries
from haproxy_lb import effects
from haproxy_lb.configure import NOTHING, Configuration
from haproxy_lb.desire import Desired, Desires, held_by, service_of
from haproxy_lb.kernel import Kernel, KernelError
from haproxy_lb.leaving import Leaving
from haproxy_lb.live import Live
from haproxy_lb.model import BackendKey, Wanted
from haproxy_lb.plan import plan
from haproxy_lb.rules import FRONTS, DeleteServer
from haproxy_lb.runtime import Away, Lost, Runtime
from haproxy_lb.slots import Allotment, Layout, Slot, allot, kind_of
from haproxy_lb.trouble import Trouble

BACKOFF: Final = Backoff(first=0.02, most=0.25, factor=2, jitter=0.5)
PROVE: Final = Backoff(first=0.03, most=1.0, factor=1.5, jitter=0.2)  # between two looks at servers that are not proven yet
LOOK: Final = 5.0  # seconds between two looks at whether another HAProxy has taken the place of the one that we know
COMPARE: Final = 60.0  # seconds between two comparisons of all, if nothing asks for one

log = structlog.get_logger(__name__)


class Applier:
    """The one writer of a HAProxy and of our table in the kernel. `want` may be called between any two awaits."""

    def __init__(self, runtime: Runtime, kernel: Kernel, configuration: Configuration, leaving: Leaving) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._configuration = configuration
        self._leaving = leaving
        self._desires = Desires(configuration.frame.inside, configuration.frame.port)
        self._wanted = Wanted()
        self._desired = NOTHING
        self._allotment = Allotment({}, {})
        self._live: Live | None = None
        self._before: Live | None = None
        self._waiting: frozenset[Slot] = frozenset()
        self._looks = 0  # at those that wait, since there was news of them
        self._since: float | None = None  # when the oldest change came that nobody has begun to apply
        self._busy = False
        self._compare_at = 0.0
        self._released = False
        self._trouble = Trouble("HAProxy has not been compared yet")
        self._shortage: str | None = None  # who has no slot
        self._begun = False  # whether all had what they should, once
        self._wake = asyncio.Event()
        runtime.gone = self._gone

    @property
    def settled(self) -> bool:
        """Whether HAProxy and the kernel have what they should, but for servers that wait for a check or for their last connection."""
        return self._live is not None and self._since is None and not self._busy and self.trouble is None

    @property
    def trouble(self) -> str | None:
        """Why HAProxy does not have what it should, in a sentence."""
        return self._trouble.reason or self._configuration.trouble or self._shortage

    @property
    def unready(self) -> str | None:
        """Why connections should go to another node, in a sentence. What is not in HAProxy's files, or waits until it begins anew, is no
        reason once all had what they should: what was in force is carried.
        """
        return self._trouble.counts(self._now())

    @property
    def slots(self) -> Mapping[BackendKey, Slot]:
        """Which of HAProxy's backends stands for a port of a Service."""
        return self._allotment.slots

    def want(self, wanted: Wanted) -> None:
        """Takes the whole wish. Nothing is applied before `release`."""
        self._wanted = wanted
        self._news()

    def release(self) -> None:
        """The wish is known to be complete."""
        if not self._released:
            self._released = True
            self._news()

    async def leave(self) -> None:
        """Takes back what the kernel was told; for when `run` has ended for good. Raises KernelError."""
        await self._kernel.remove()

    def _gone(self) -> None:
        """HAProxy has ended the connection, so it is probably another one now."""
        self._compare_at = 0.0
        self._wake.set()

    def _news(self) -> None:
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        self._wake.set()

    async def run(self) -> None:
        """Applies until cancelled."""
        await self._persist(self._kernel.route)  # HAProxy cannot start before it
        await self._configuration.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._configuration.keep(), name="haproxy-files")
            while True:
                await self._persist(self._step)

    async def _persist(self, step: Callable[[], Awaitable[None]]) -> None:
        """Takes a step, again and again until it is done."""
        tries = Tries(BACKOFF)
        while True:
            try:
                return await step()
            except (Lost, KernelError) as error:
                self._lost(error)
                await tries.pause()

    async def _step(self) -> None:
        if not self._released:
            await self._wait(None)
        elif self._live is None or self._now() >= self._compare_at:
            await self._compare()
        elif self._since is not None:
            await self._push(self._live)
        elif not await self._wait(self._patience()):
            await self._tend(self._live)

    def _patience(self) -> float:
        """How long nothing needs to be done, if there is no news."""
        prove = PROVE.delay(self._looks, random.random()) if self._waiting else LOOK  # noqa: S311 jitter
        return max(0.0, min(LOOK, prove, self._leaving.soonest - self._now()))

    async def _wait(self, seconds: float | None) -> bool:
        """Waits for news. Whether there is any."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                self._wake.clear()
                return True
        return False

    async def _tend(self, live: Live) -> None:
        """Does what its time has come for."""
        if self._waiting:
            await self._prove(live)
        if self._leaving.soonest <= self._now():
            await self._dismiss(live)
        await live.same()

    async def _compare(self) -> None:
        """Reads all back, and mends what is not as it should be."""
        live = await Live.read(self._runtime, self._kernel)
        if self._before is not None:
            live.compare(self._before)
        if self._live is None:
            log.info("haproxy.compared", pid=live.process.pid, version=live.process.version, slots=len(live.held.slots))
        self._live = self._before = live
        self._compare_at = self._now() + COMPARE
        await self._push(live, whole=True)

    async def _push(self, live: Live, *, whole: bool = False) -> None:
        since, self._since, self._busy = self._since, None, True
        before = self._desired.slots
        try:
            self._allotment = self._allot(live, live.layout)
            self._desired = self._desires.of(self._wanted, self._allotment.slots, doors=live.process.doors)
            changed = _changed(before, self._desired.slots) | self._waiting
            await self._execute(live, live.held.slots.keys() if whole else changed)
            self._configuration.meet(self._wanted.peers)
            self._configuration.note(live.layout, self._desired)
            if await self._configuration.renew(
                live.process, live.layout, self._allotment.needed, lambda goal: self._next(live, goal)
            ):
                self._live, self._since = None, since
        except BaseException:
            self._since = since if self._since is None else self._since
            raise
        finally:
            self._busy = False
        self._looks = 0
        if self._live is not None:
            self._done(since)

    def _done(self, since: float | None) -> None:
        """HAProxy and the kernel have what they can have."""
        self._shortage = self._short()
        self._begun = self._begun or self._shortage is None
        if self._begun:
            self._trouble.over()
        else:
            self._trouble.begin(str(self._shortage), self._now(), grave=True)
        if since is not None and self._shortage is None:
            effects.LATENCY.observe(self._now() - since)

    def _next(self, live: Live, layout: Layout) -> Desired:
        """What a HAProxy with this layout should begin with, so that it need not be told afterwards."""
        return self._desires.of(self._wanted, self._allot(live, layout).slots)

    def _allot(self, live: Live, layout: Layout) -> Allotment:
        """Who has a slot keeps it. After a restart of ours, that is told by the fronts that HAProxy has. Nobody gets one that is somebody
        else's in the files: a HAProxy that starts before they are written would begin there with the servers of that one.
        """
        kinds = {key: kind_of(backend.treatment) for key, backend in self._wanted.backends.items()}
        told = held_by(live.held.tables[FRONTS])
        known = {key: slot for key in kinds if (slot := self._allotment.slots.get(key) or told.get(service_of(key))) is not None}
        taken = {slot for slot, servers in live.held.slots.items() if servers} | set(told.values())
        return allot(kinds, known, taken | self._configuration.written, layout)

    async def _execute(self, live: Live, slots: Iterable[Slot]) -> None:
        """Brings the servers of `slots`, and all tables, to what they should be."""
        chosen = frozenset(slots)
        steps = plan(live.held, self._desired, chosen)
        await live.give(steps.first)
        await live.direct(self._desired.kernel)
        await live.give(steps.last)
        self._leaving.note(chosen, steps.leaving, steps.gone, self._now())
        self._waiting = steps.waiting | (self._waiting - chosen)
        effects.SLOTS.labels("there").set(len(live.held.slots))
        effects.SLOTS.labels("taken").set(len(self._allotment.slots))
        effects.WAITING.set(len(self._waiting))
        effects.LEAVING.set(len(self._leaving))

    async def _prove(self, live: Live) -> None:
        """Servers whose first check has passed get connections now."""
        waiting = self._waiting
        self._looks += 1
        await live.look(sorted(waiting))
        await self._execute(live, waiting)
        if self._waiting != waiting:
            self._looks = 0

    async def _dismiss(self, live: Live) -> None:
        """Servers that nobody is connected to any more are deleted."""
        now = self._now()
        asked = self._leaving.due(now)
        commands = [command for case in asked for command in case.commands]
        answers = dict(zip(commands, await live.runtime.give(commands), strict=True))
        for case in asked:
            deletion = DeleteServer(case.slot, case.name)
            deleted = deletion in answers and answers[deletion] is None and live.held.obey(deletion) is None
            self._leaving.asked((case.slot, case.name), now, random.random(), deleted=deleted)  # noqa: S311 jitter
        effects.LEAVING.set(len(self._leaving))

    def _short(self) -> str | None:
        missing = sorted(self._wanted.backends.keys() - self._allotment.slots.keys())
        if not missing:
            return None
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        return f"HAProxy has no slot for {missing[0]}{others} before it has begun anew with more"

    def _lost(self, error: Exception) -> None:
        """Whatever happened: read all back before the next command."""
        if self._live is not None or self._trouble.reason != str(error):
            log.warning("haproxy.lost", reason=str(error), kind=type(error).__name__)
        self._live, self._before = None, None
        self._trouble.begin(str(error), self._now(), grave=isinstance(error, Away))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _changed(before: Mapping[Slot, object], after: Mapping[Slot, object]) -> set[Slot]:
    """The slots whose servers should be others. What did not change is the same object."""
    return {slot for slot, specs in after.items() if before.get(slot) is not specs} | (before.keys() - after.keys())
