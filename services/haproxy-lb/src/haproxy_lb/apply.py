"""Apply: makes HAProxy and the kernel have what they should, for ever.

One task writes, over one connection, and each answer is looked at. It knows what HAProxy holds by what HAProxy took, so a change costs the
commands that it needs and no reading. When HAProxy is another one, does not answer, or answers otherwise than its rules say, everything is
read back and only the difference is mended. What needs another configuration, such as more slots, is a reload: tested first, and counted.
"""

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Final

import structlog

from common.backoff import Backoff
from haproxy_lb import effects, master
from haproxy_lb.desire import Desired, Desires, held_by, service_of
from haproxy_lb.files import BadConfigurationError, Files
from haproxy_lb.kernel import Kernel, KernelError
from haproxy_lb.leaving import Leaving
from haproxy_lb.model import BackendKey, FrontKey, Wanted
from haproxy_lb.plan import Plan, plan
from haproxy_lb.render import fingerprint
from haproxy_lb.rules import FRONTS, TABLES, Command, DeleteServer, EndSessions, Held
from haproxy_lb.runtime import Lost, Process, Runtime
from haproxy_lb.slots import Allotment, Layout, Slot, allot, fitting, kind_of, layout_of

BACKOFF: Final = Backoff(first=0.02, most=1.0, factor=2, jitter=0.5)
PROVE: Final = Backoff(first=0.03, most=1.0, factor=1.5, jitter=0.2)  # between two looks at servers that are not proven yet
LOOK: Final = 1.0  # seconds between two looks at whether HAProxy is still the one that we know
COMPARE: Final = 60.0  # seconds between two comparisons of all, if nothing asks for one
TAKEN: Final = 20.0  # seconds for a reload to show
REFUSED: Final = 60.0  # seconds before a configuration that did not come into force is tried again
REST: Final = 1.0  # seconds between two writings of the files, at least
NOTHING: Final = Desired({name: {} for name in TABLES}, {}, {})

log = structlog.get_logger(__name__)


class Applier:
    """The one writer of a HAProxy and of our table in the kernel. `want` may be called between any two awaits."""

    def __init__(self, runtime: Runtime, reload_socket: Path, kernel: Kernel, files: Files, leaving: Leaving) -> None:
        self.trouble: str | None = "HAProxy has not been compared yet"
        self._runtime = runtime
        self._reload_socket = reload_socket
        self._kernel = kernel
        self._files = files
        self._leaving = leaving
        self._desires = Desires(files.frame.inside, files.frame.port)
        self._wanted = Wanted()
        self._desired = NOTHING
        self._allotment = Allotment({}, {})
        self._layout: Layout = {}
        self._held: Held | None = None
        self._process: Process | None = None
        self._fronts: dict[FrontKey, str] | None = None  # the kernel's
        self._waiting: frozenset[Slot] = frozenset()
        self._looks = 0  # at those that wait, since the last news
        self._refused: tuple[str, float] = ("", 0.0)  # a configuration that HAProxy does not take, and when to offer it again
        self._since: float | None = None  # when the oldest change came that is not in force
        self._busy = False
        self._compare_at = 0.0
        self._released = False
        self._wake = asyncio.Event()
        self._unwritten = asyncio.Event()
        self._writing = asyncio.Lock()

    @property
    def settled(self) -> bool:
        """Whether HAProxy and the kernel have what they should, but for servers that wait for a check or for their last connection."""
        return self._held is not None and self._since is None and not self._busy and self.trouble is None

    @property
    def slots(self) -> Mapping[BackendKey, Slot]:
        """Which of HAProxy's backends stands for a port of a Service."""
        return self._allotment.slots

    def want(self, wanted: Wanted) -> None:
        """Takes the whole wish. Nothing is applied before `release`."""
        self._wanted = wanted
        self._changed()

    def release(self) -> None:
        """The wish is known to be complete."""
        if not self._released:
            self._released = True
            self._changed()

    def _changed(self) -> None:
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
        self._wake.set()

    async def run(self) -> None:
        """Applies until cancelled."""
        if not self._files.there:
            await self._write(self._files.frame.slots, NOTHING)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_files(), name="haproxy-files")
            await self._apply()

    async def _apply(self) -> None:
        attempt = 0
        while True:
            try:
                await self._step()
                attempt = 0
            except (Lost, KernelError) as error:
                self._lost(error)
                await asyncio.sleep(BACKOFF.delay(attempt, random.random()))  # noqa: S311 jitter
                attempt += 1

    async def _step(self) -> None:
        if not self._released:
            await self._wait(None)
        elif self._held is None:
            await self._compare()
        elif self._since is not None:
            await self._push()
        else:
            await self._idle()

    async def _idle(self) -> None:
        """Waits for news, and does what its time has come for."""
        now = asyncio.get_running_loop().time()
        prove = PROVE.delay(self._looks, random.random()) if self._waiting else LOOK  # noqa: S311 jitter
        if await self._wait(max(0.0, min(LOOK, prove, self._leaving.soonest - now))):
            return
        now = asyncio.get_running_loop().time()
        if self._waiting:
            await self._prove()
        if self._leaving.soonest <= now:
            await self._dismiss()
        await self._look()

    async def _wait(self, seconds: float | None) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                self._wake.clear()
                return True
        return False

    async def _look(self) -> None:
        """Whether HAProxy and our table are still the ones that we know."""
        process = await self._runtime.process()
        if process.stopping or process != self._process:
            self._runtime.close()
            raise Lost(f"HAProxy is another one now: process {process.pid}")
        if asyncio.get_running_loop().time() >= self._compare_at:
            await self._compare()

    async def _compare(self) -> None:
        """Reads all back. What differs is mended by the next push."""
        process, held, fronts = await self._runtime.process(), await self._runtime.held(), await self._kernel.held()
        if process.stopping:
            self._runtime.close()
            raise Lost(f"HAProxy's process {process.pid} makes way for another one")
        if self._held is not None and (differences := self._held.differences(held)):
            effects.DRIFT.labels("haproxy").inc()
            log.warning("haproxy.drifted", differences=differences[:10])
        if self._fronts is not None and self._fronts != fronts:
            effects.DRIFT.labels("kernel").inc()
            log.warning("kernel.drifted", held=len(fronts or ()), told=len(self._fronts))
        effects.COMPARISONS.inc()
        if process != self._process:
            log.info("haproxy.found", pid=process.pid, version=process.version, servers=sum(map(len, held.slots.values())))
        self._process, self._held, self._fronts = process, held, fronts
        self._layout = layout_of(held.slots)
        self._compare_at = asyncio.get_running_loop().time() + COMPARE
        self._changed()
        await self._push(whole=True)

    async def _push(self, *, whole: bool = False) -> None:
        assert self._held is not None and self._process is not None
        since, self._since, self._busy = self._since, None, True
        before = self._desired.slots
        try:
            self._allotment = self._allot(self._held)
            self._desired = self._desires.of(self._wanted, self._allotment.slots)
            slots = None if whole else _changed(before, self._desired.slots) | self._waiting
            await self._execute(plan(self._held, self._desired, slots), slots)
            await self._reload_if_needed(self._process)
        except BaseException:
            self._since = since if self._since is None else self._since
            raise
        finally:
            self._busy = False
        self._unwritten.set()
        self._looks = 0
        self.trouble = self._shortage()
        if since is not None and self.trouble is None:
            effects.LATENCY.observe(asyncio.get_running_loop().time() - since)

    def _allot(self, held: Held) -> Allotment:
        kinds = {key: kind_of(backend.treatment) for key, backend in self._wanted.backends.items()}
        table = held_by(held.tables[FRONTS])
        known = {key: slot for key in kinds if (slot := self._allotment.slots.get(key) or table.get(service_of(key))) is not None}
        taken = {slot for slot, servers in held.slots.items() if servers} | set(table.values())
        return allot(kinds, known, taken, self._layout)

    async def _execute(self, steps: Plan, slots: Set[Slot] | None) -> None:
        assert self._held is not None
        await self._give(steps.first)
        if self._fronts is None:
            await self._kernel.replace(self._desired.kernel)
        elif self._fronts != self._desired.kernel:
            await self._kernel.change(self._fronts, self._desired.kernel)
        self._fronts = dict(self._desired.kernel)
        await self._give(steps.last)
        now = asyncio.get_running_loop().time()
        chosen = self._held.slots.keys() if slots is None else slots
        self._leaving.note(chosen, steps.leaving, steps.gone, now)
        self._waiting = steps.waiting | (self._waiting - set(chosen))
        effects.SLOTS.labels("there").set(len(self._held.slots))
        effects.SLOTS.labels("taken").set(len(self._allotment.slots))
        effects.SERVERS.labels("leaving").set(len(self._leaving))

    async def _give(self, commands: Sequence[Command]) -> None:
        """Gives commands, and notes what became of them. Raises Lost if HAProxy does not as its rules say, after all were given."""
        if not commands:
            return
        assert self._held is not None
        faults = []
        for command, refusal in zip(commands, await self._runtime.give(commands), strict=True):
            fault = refusal or self._held.obey(command)
            effects.COMMANDS.labels("refused" if fault else "obeyed").inc()
            if fault:
                faults.append(f"{command}: {fault}")
        if faults:
            log.error("haproxy.refused", count=len(faults), first=faults[:5])
            raise Lost(f"HAProxy refuses {len(faults)} of {len(commands)} commands, the first is {faults[0]}")

    async def _prove(self) -> None:
        """Servers whose first check has passed get connections now."""
        assert self._held is not None
        self._looks += 1
        for slot, name, server in await self._runtime.look(sorted(self._waiting)):
            if name in self._held.slots.get(slot, {}):
                self._held.slots[slot][name] = server
        waiting = self._waiting
        steps = plan(self._held, self._desired, waiting)
        await self._execute(steps, waiting)
        if steps.waiting != waiting:
            self._looks = 0

    async def _dismiss(self) -> None:
        """Servers that nobody is connected to any more are deleted."""
        assert self._held is not None
        now = asyncio.get_running_loop().time()
        commands = self._leaving.due(now)
        for command, refusal in zip(commands, await self._runtime.give(commands), strict=True):
            if isinstance(command, EndSessions):
                log.info("server.overdue", server=f"{command.slot}/{command.name}")
                if all(other != DeleteServer(command.slot, command.name) for other in commands):
                    self._leaving.asked((command.slot, command.name), now, 0.0, deleted=False)
                continue
            deleted = refusal is None and self._held.obey(command) is None
            self._leaving.asked((command.slot, command.name), now, random.random(), deleted=deleted)  # noqa: S311 jitter
            self._unwritten.set()
        effects.SERVERS.labels("leaving").set(len(self._leaving))

    async def _reload_if_needed(self, process: Process) -> None:
        """Begins anew where HAProxy runs with another configuration than it should, such as one with too few slots."""
        goal = fitting(self._files.frame.slots, self._layout, self._allotment.needed)
        name = fingerprint(self._files.frame, goal)
        now = asyncio.get_running_loop().time()
        if name == process.fingerprint or (name == self._refused[0] and now < self._refused[1]):
            return
        cause = "slots" if goal != self._layout else "configuration"
        log.info("haproxy.reload", cause=cause, slots=sum(goal.values()))
        self._refused = (name, now + REFUSED)
        if not await self._write(goal, self._desired):
            return
        effects.RELOADS.labels(cause).inc()
        await master.reload(self._reload_socket)
        await self._taken(name)
        self._refused = ("", 0.0)

    async def _taken(self, name: str) -> None:
        """Waits until a HAProxy with that configuration answers; it is compared next. Raises Lost if none does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TAKEN):
                while True:
                    self._runtime.close()
                    with contextlib.suppress(Lost):
                        process = await self._runtime.process()
                        if process.fingerprint == name and not process.stopping:
                            self._held = None
                            self._changed()
                            return
                    await asyncio.sleep(0.02)
        raise Lost("HAProxy was told to begin anew and goes on as it was; its own log says why")

    async def _write(self, layout: Layout, desired: Desired) -> bool:
        """Puts the configuration on disk. False if HAProxy would not take it."""
        async with self._writing:
            try:
                await self._files.write(layout, desired)
            except (BadConfigurationError, OSError) as error:
                log.error("configuration.refused", reason=str(error))
                self.trouble = f"the configuration cannot be written: {error}"
                return False
        return True

    async def _keep_files(self) -> None:
        """Keeps the files as HAProxy is, soon after each change; and rests ten times as long as that takes, so that it is never most of what
        we do.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._unwritten.wait()
            self._unwritten.clear()
            began = loop.time()
            if self._held is not None:
                await self._write(self._layout, self._desired)
            await asyncio.sleep(max(REST, 10 * (loop.time() - began)))

    def _shortage(self) -> str | None:
        missing = sorted(self._wanted.backends.keys() - self._allotment.slots.keys())
        return f"there is no slot for {missing[0]} and {len(missing) - 1} others" if missing else None

    def _lost(self, error: Exception) -> None:
        """Whatever happened: read all back before the next command."""
        if self._held is not None or self.trouble != str(error):
            log.warning("haproxy.lost", reason=str(error), kind=type(error).__name__)
        self._held = None
        self.trouble = str(error)


def _changed(before: Mapping[Slot, object], after: Mapping[Slot, object]) -> set[Slot]:
    """The slots whose servers should be others. What did not change is the same object."""
    return {slot for slot, specs in after.items() if before.get(slot) is not specs} | (before.keys() - after.keys())
