"""`seaway up`: a whole Seaway on this machine, each part a process of its own, supervised.

Parts start in the order in which they need each other and are told of in one line each. One that ends before all are there ends everything,
with its last words; one that ends later is started again. At the end the edge goes first, so that nobody is served by half a Seaway, and
the bus last.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from common.backoff import Backoff
from common.process import RESTARTS, Child
from common.runtime import probe
from common.runtime.signals import asked_to_stop
from seaway import balanced, balancers, ground
from seaway.balanced import HAPROXY
from seaway.ground import CannotStart, Say
from seaway.parts import Options, Part, Programs, nats_server, nginx, renderer, watcher

_SLOW: Final = 5.0  # seconds after which the operator is told what is waited for
_PAUSE: Final = 0.02
_REQUESTS: Final = 3.0  # seconds for requests in progress to be answered at the end
_SERVICES: Final = 4.5  # seconds for the services to end
_BUS: Final = 2.0  # seconds for the bus to end; with the two above less than ten
_MARKS: Final = {
    "nats-server": ("[ERR]", "[FTL]", "[WRN]"),
    HAPROXY: ("[ALERT]", "[WARNING]"),
}  # of lines that an operator should see
_CONNECT: Final = 1.0  # seconds
_LAST_REQUESTS: Final = {"nginx": signal.SIGQUIT, HAPROXY: signal.SIGUSR1}  # what each is told, to end when it has answered
_AT_ONCE: Final = Backoff(first=0.05, most=0.5)  # clients find nobody at home meanwhile, and a start costs little

Check = Callable[[], Awaitable[str | None]]  # None for "there", or what is missing


async def up(options: Options, say: Say, warn: Say) -> None:
    """Runs a Seaway until SIGINT or SIGTERM. Raises CannotStart."""
    with ground.held(options.home, options.vault):
        programs = ground.programs()
        if options.balancing is not None:
            programs = replace(programs, balancers=balancers.find(options.balancing))
        ground.ports(options)
        ground.directories(options, programs.user)
        if programs.balancers is not None:
            balancers.directories(options, programs.balancers)
        ground.bus_configuration(options)
        ended: CannotStart | None = None  # what is raised in `except*` is raised in a group by Python 3.11.2
        try:
            async with asyncio.TaskGroup() as group:
                await _run(Seaway(options, programs, group, say, warn), say)
        except* CannotStart as errors:
            ended = CannotStart(str(errors.exceptions[0]))
        except* OSError as errors:
            ended = CannotStart(f"a program cannot be started: {errors.exceptions[0]}")
        if ended is not None:
            raise ended


async def _run(seaway: "Seaway", say: Say) -> None:
    stopping = asyncio.create_task(asked_to_stop().wait())
    starting = asyncio.create_task(seaway.start())
    try:
        began = time.monotonic()
        await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            say(f"Ready after {time.monotonic() - began:.1f} s. Ctrl-C ends it.")
            await stopping
        say("Ending.")
    finally:
        stopping.cancel()
        starting.cancel()
        await asyncio.wait({stopping, starting})
        await seaway.stop()


class Seaway:
    """The parts that run, as tasks of `group`."""

    def __init__(self, options: Options, programs: Programs, group: asyncio.TaskGroup, say: Say, warn: Say) -> None:
        self._options = options
        self._programs = programs
        self._group = group
        self._say = say
        self._warn = warn
        self._children: dict[str, Child] = {}
        self._complete = False

    async def start(self) -> None:
        """Starts every part. Raises CannotStart if one ends instead of coming up; waits for as long as it takes otherwise."""
        home, options, programs = self._options.home, self._options, self._programs
        bus, source, tables, edge = (part(options, programs) for part in (nats_server, watcher, renderer, nginx))
        self._launch(bus)
        await self._there(bus, partial(_listens, options.nats))
        home.address.write_text(f"nats://127.0.0.1:{options.nats}\n")
        self._launch(source)
        self._launch(tables)
        await self._there(source, self._probe(source, "livez"))
        await self._there(tables, partial(_exists, home.edge / "nginx.conf"))
        run = home.edge / "run"
        self._launch(edge, prepare=partial(_clear, run), restarts=_AT_ONCE)
        await self._there(edge, partial(_exists, run / "admin.sock"))
        for part in (source, tables, *await self._balance()):
            await self._missing(part, self._probe(part, "readyz"))
        self._complete = True

    async def _balance(self) -> tuple[Part, ...]:
        """Starts what balances, if it is asked for, once the cluster has the pools; the services among it."""
        options, programs = self._options, self._programs
        balancing, found = options.balancing, programs.balancers
        if balancing is None or found is None or options.kubeconfig is None:
            return ()
        service = balanced.haproxy_lb(options, balancing, programs, found)
        asked = balancers.Ask(options.kubeconfig, balancing)
        await self._missing(service, asked.missing)
        self._launch(service)
        await self._there(service, partial(_exists, balanced.configuration(options)))
        run = options.home.balancer / "run"
        proxy = balanced.haproxy(options, balancing, programs, found)
        self._launch(proxy, prepare=partial(_clear, run), restarts=_AT_ONCE)
        await self._there(proxy, partial(_exists, run / "admin.sock"))
        if balancing.interface is None:
            return (service,)
        holder = balanced.keepalived_vip(options, balancing, programs, found, asked.node)
        self._launch(holder)
        await self._there(holder, self._probe(holder, "livez"))
        return service, holder

    async def stop(self) -> None:
        """Ends every part: nginx and HAProxy after their requests, then the services together, then the bus."""
        children = dict(self._children)
        edges = [(children.pop(name), number) for name, number in _LAST_REQUESTS.items() if name in children]
        bus = children.pop("nats-server", None)
        await asyncio.gather(*(edge.stop(_REQUESTS, number) for edge, number in edges))
        await asyncio.gather(*(child.stop(_SERVICES) for child in children.values()))
        if self._options.balancing is not None:
            await balancers.leave_nothing(self._options.balancing, self._warn)
        if bus is not None:
            await bus.stop(_BUS)

    def _launch(self, part: Part, prepare: Callable[[], None] = lambda: None, restarts: Backoff = RESTARTS) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEAWAY_")}
        child = Child(
            part.name,
            part.command,
            environment={**inherited, **part.environment},
            prepare=prepare,
            hear=partial(self._heard, part.name),
            ended=self._ended,
            restarts=restarts,
        )
        self._children[part.name] = child
        self._group.create_task(child.run(), name=part.name)

    async def _there(self, part: Part, check: Check) -> None:
        """Waits for a part, and says what it does."""
        await self._missing(part, check)
        self._say(f"{part.name:<22} {part.says}")

    async def _missing(self, part: Part, check: Check) -> None:
        """Waits until nothing is missing; says what is waited for if that takes long, and again when it is another thing."""
        began, told = time.monotonic(), ""
        while (missing := await check()) is not None:
            self._check_all()
            if time.monotonic() - began > _SLOW and missing != told:
                self._warn(f"{part.name} is not ready yet: {missing}")
                told = missing
            await asyncio.sleep(_PAUSE)

    def _check_all(self) -> None:
        """Raises CannotStart if any part ended."""
        for child in self._children.values():
            if child.last_code is not None:
                words = child.words[-1] if child.words else "it said nothing"
                raise CannotStart(f"{child.name} ended with {_code(child.last_code)}: {words}")

    def _probe(self, part: Part, question: str) -> Check:
        return partial(asyncio.to_thread, _ask, self._options.home.run / part.name, question)

    def _heard(self, name: str, line: str) -> None:
        if self._options.verbose or name not in _MARKS or any(mark in line for mark in _MARKS[name]):
            self._warn(f"{name} | {line}")

    def _ended(self, child: Child) -> None:
        if self._complete:
            self._warn(f"{child.name} ended with {_code(child.last_code)} and is started again")


async def _listens(port: int) -> str | None:
    try:
        async with asyncio.timeout(_CONNECT):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError) as error:
        return f"nobody answers on port {port}: {error}"
    writer.close()
    await writer.wait_closed()
    return None


async def _exists(path: Path) -> str | None:
    return None if await asyncio.to_thread(path.exists) else f"{path} is not there"


def _clear(run: Path) -> None:
    """The sockets of an nginx that was killed would be in the way of the next one."""
    for socket in run.glob("*.sock"):
        socket.unlink(missing_ok=True)


def _ask(socket: Path, question: str) -> str | None:
    """The first complaint, without the probe's marks."""
    answer = probe.ask(f"unix:{socket}", question)
    if answer is None:
        return None
    return next((line.removeprefix("[-]") for line in answer.splitlines() if line.startswith("[-]")), answer)


def _code(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
