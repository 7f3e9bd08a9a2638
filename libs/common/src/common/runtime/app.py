"""The frame of a service: settings, logs, probes, signals, one TaskGroup that owns everything, and an orderly end.

    def main() -> None:
        run("zone-renderer", Settings, compose)

    async def compose(app: App[Settings]) -> None:
        bus = await app.bus()
        app.spawn("follow", follow(bus))
        app.at_stop(Stage.FLUSH, "publisher", publisher.flush)

`compose` wires the parts and returns; the service then runs until a signal comes or a task ends with an exception. At the end the stages
run in their order, each entry with what is left of the deadline; an entry that does not finish or fails is named in the log, the others
are done all the same, and the exit code is 1. A second signal ends the process at once.

    Fatal      why a service cannot go on, as a sentence for people: no traceback
"""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar

import structlog

from common.bus.facts import FactPublisher
from common.bus.lasting import LastingBus
from common.bus.nats import NatsBus, connect
from common.bus.protocol import Bus, BusError
from common.groups import leaves
from common.runtime import collector, logging
from common.runtime.health import Health
from common.runtime.lastresort import LastResort
from common.runtime.reports import Reports
from common.runtime.settings import ServiceSettings, load
from common.runtime.signals import asked_to_stop

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")

log = structlog.get_logger(__name__)

_OVERTIME: Final = 2.0  # seconds after the deadline for what has no stage: tasks that were cancelled, probes in progress


class Fatal(Exception):
    """Why a service cannot go on. The text names what is missing and the mend."""


class Stage(IntEnum):
    """The order of an orderly end."""

    INTAKE = 0  # take nothing new
    DRAIN = 1  # finish what was begun
    FLUSH = 2  # tell what is done
    CLOSE = 3  # let go


class App(Generic[S]):
    """A running service."""

    def __init__(self, service: str, settings: S, group: asyncio.TaskGroup, stack: contextlib.AsyncExitStack) -> None:
        self.service = service
        self.settings = settings
        self.health = Health()
        self.health.ready_when("running", lambda: self._absence)
        self._absence: str | None = "still being put together"
        self._group = group
        self._stack = stack
        self._tasks: list[asyncio.Task[None]] = []
        self._stages: list[tuple[Stage, str, Callable[[], Awaitable[None]]]] = []
        self._failures: list[Exception] = []

    async def begin(self, compose: Callable[["App[S]"], Awaitable[None]]) -> None:
        """Composes the service. It is not ready before, whatever its parts say: not all of them may be there to be asked."""
        await compose(self)
        self._absence = None

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs `work` until the service ends; an exception in it ends the service."""
        task = self._group.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def enter(self, context: contextlib.AbstractAsyncContextManager[T]) -> T:
        """Opens `context`; it is closed when the service ends, after all tasks."""
        return await self._stack.enter_async_context(context)

    def at_stop(self, stage: Stage, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Does `work` when the service ends, in its stage."""
        self._stages.append((stage, name, work))

    async def bus(self) -> NatsBus:
        """A connection to the bus, with its watchdog; closed last."""
        bus = await connect(self.settings.bus)
        self.spawn("bus-watchdog", bus.watch())
        self.at_stop(Stage.CLOSE, "bus", bus.close)
        self.health.live_while("event-loop", lambda: None)
        return bus

    def lasting_bus(self) -> LastingBus:
        """A bus whose end is not the service's: there is a connection later, and another one where the first cannot be saved."""
        bus = LastingBus(self.settings.bus)
        self.spawn("bus", bus.run())
        self.at_stop(Stage.CLOSE, "bus", bus.close)
        self.health.live_while("event-loop", lambda: None)
        return bus

    def reports(self, bus: Bus) -> Reports:
        """The voice of the service on the bus: facts and alerts. What was said is sent before the end."""
        facts = FactPublisher(bus)
        reports = Reports(facts, service=self.service, cluster=self.settings.cluster, instance=self.settings.instance)
        self.spawn("facts", facts.run())
        self.spawn("alerts", reports.remember(bus))
        self.at_stop(Stage.FLUSH, "facts", facts.flush)
        return reports

    async def stop(self) -> bool:
        """Runs the stages; the tasks end before the last one. Whether everything was done in time. Raises what they raised."""
        self._absence = "ending"
        ends = asyncio.get_running_loop().time() + self.settings.shutdown_deadline
        stages = sorted(self._stages, key=lambda entry: entry[0])
        working = await self._do([entry for entry in stages if entry[0] < Stage.CLOSE], ends)
        tasks = await self._cancel(ends)
        closed = await self._do([entry for entry in stages if entry[0] is Stage.CLOSE], ends)
        if self._failures:
            raise ExceptionGroup("the end of the service", self._failures)
        return working and tasks and closed

    async def _do(self, stages: Sequence[tuple[Stage, str, Callable[[], Awaitable[None]]]], ends: float) -> bool:
        done = True
        for stage, name, work in stages:
            # Not waited for within a timeout: work that heeds no cancellation would outlast it.
            task = asyncio.ensure_future(work())
            await asyncio.wait({task}, timeout=max(0.1, ends - asyncio.get_running_loop().time()))
            if not task.done() or task.cancelled() or isinstance(task.exception(), TimeoutError):
                done = False
                task.cancel()
                self._hung(stage.name.lower(), name)
            elif isinstance(error := task.exception(), Exception):
                self._failures.append(error)
        return done

    async def _cancel(self, ends: float) -> bool:
        for task in self._tasks:
            task.cancel()
        left = max(0.5, ends - asyncio.get_running_loop().time())
        hung = (await asyncio.wait(self._tasks, timeout=left))[1] if self._tasks else set()
        for task in hung:
            self._hung("tasks", task.get_name())
        return not hung

    def _hung(self, stage: str, part: str) -> None:
        log.error("shutdown.hung", stage=stage, part=part, deadline=self.settings.shutdown_deadline)


def run(service: str, kind: type[S], compose: Callable[[App[S]], Awaitable[None]]) -> None:
    """Runs a service to its end and exits: 0 after a signal, 1 otherwise, 2 for wrong settings."""
    settings = load(kind, service, sys.argv[1:])
    logging.configure(service, settings)
    collector.spare()
    last_resort = LastResort(settings.shutdown_deadline + _OVERTIME)
    try:
        code = asyncio.run(_serve(service, settings, compose, last_resort))
    finally:
        last_resort.over()
    sys.exit(code)


async def _serve(service: str, settings: S, compose: Callable[[App[S]], Awaitable[None]], last_resort: LastResort) -> int:
    stopping = asked_to_stop()
    done = True
    try:
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            app = App(service, settings, group, stack)
            address = await _probes(app)
            log.info("service.started", instance=settings.instance, cluster=settings.cluster, probes=address)
            try:
                await _until(stopping, app.begin(compose))
            finally:
                last_resort.begin()
            log.info("service.stopping")
            done = await app.stop()
    except* (Fatal, BusError) as errors:
        done = False
        for error in leaves(errors):
            log.error("service.failed", reason=str(error))
    except* Exception as errors:
        done = False
        for crash in leaves(errors):
            log.error("service.crashed", error=repr(crash), exc_info=crash)
    log.info("service.stopped")
    return 0 if done else 1


async def _probes(app: App[S]) -> str:
    try:
        return await app.enter(app.health.served(app.settings.probes))
    except OSError as error:
        raise Fatal(f"probes cannot be served at {app.settings.probes}: {error.strerror}; choose another --probes") from None


async def _until(stopping: asyncio.Event, composing: Awaitable[None]) -> None:
    """Composes, then waits for the signal; one that comes while the service is still composed ends that."""
    composed = asyncio.ensure_future(composing)
    signalled = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({composed, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if composed.done():
            composed.result()
            await signalled
    finally:
        for waiting in (composed, signalled):
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
