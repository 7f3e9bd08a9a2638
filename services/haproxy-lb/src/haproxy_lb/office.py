"""The office of the leader: it gives addresses, and tells the API server and the bus.

Of several balancers one leads. In this order it decides (`allocation`), writes that down (`record`), says on the bus which addresses are
wanted, and shows them in the status of Services. What it has not written down is not given. Serving does not depend on any of it: each
balancer serves what the status of Services shows.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from common.backoff import Backoff
from common.contracts.addresses import WantedAddress
from common.contracts.facts import AddressGiven, object_name
from common.contracts.problems import Problem
from common.kube.errors import KubeError
from common.kube.events import Recorder
from common.runtime.reports import Reports
from common.tries import Tries
from haproxy_lb import metrics
from haproxy_lb.allocation import Allocation, allocate
from haproxy_lb.book import Granted
from haproxy_lb.claims import Claim, ServiceName
from haproxy_lb.display import Display
from haproxy_lb.follow import Intake
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.proclaim import Proclaimer
from haproxy_lb.record import NoNamespace, Record, Superseded
from haproxy_lb.usage import Used, usage

LOOK: Final = 30.0  # seconds between two looks without news
GATHER: Final = 0.005  # seconds in which news gather, so that a burst of changes is not as many looks at everything
DEADLINE: Final = 10.0  # seconds to read or write the record
_BACKOFF: Final = Backoff(first=0.1, most=10, factor=2, jitter=1)
_NOTHING: Final[tuple[Granted, ...]] = ()

log = structlog.get_logger(__name__)


class Office:
    """What the leader does. `instance` names this balancer; `clock` is the time in seconds since 1970."""

    def __init__(
        self,
        knowledge: Knowledge,
        intake: Intake,
        record: Record,
        *,
        display: Display,
        recorder: Recorder,
        reports: Reports,
        proclaimer: Proclaimer,
        instance: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.problems: tuple[Problem, ...] = ()
        self._knowledge = knowledge
        self._intake = intake
        self._record = record
        self._display = display
        self._recorder = recorder
        self._reports = reports
        self._proclaimer = proclaimer
        self._instance = instance
        self._clock = clock
        self._given: Mapping[ServiceName, tuple[Granted, ...]] | None = None
        self._told: frozenset[Problem] = frozenset()

    async def hold(self) -> None:
        """Leads until cancelled."""
        self._given, self._told = None, frozenset()
        self._display.forget()
        self._proclaimer.forget()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._proclaimer.run())
                group.create_task(self._serve())
        finally:
            self._have(())
            _expose(())

    async def _serve(self) -> None:
        tries, known = Tries(_BACKOFF), False
        while True:
            self._intake.services.clear()
            again: int | None = None
            try:
                if not known:
                    async with asyncio.timeout(DEADLINE):
                        await self._record.read()
                    known = True
                if not self._knowledge.awaited:
                    again = await self._decide()
                tries.done()
            except Superseded as error:
                log.info("record.superseded", reason=str(error), attempt=tries.failed)
                known = False
                await tries.pause()
                continue
            except (KubeError, TimeoutError) as error:
                log.warning("addresses.delayed", reason=str(error) or "no answer in time", attempt=tries.failed)
                if isinstance(error, NoNamespace):
                    self._have((Problem(error.ref, "NoNamespace", str(error)),))
                await tries.pause()
                continue
            await self._wait(again)

    async def _wait(self, again: int | None) -> None:
        """Waits for news, or for what comes by time."""
        patience = LOOK if again is None else min(LOOK, max(0.1, again - self._clock()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._intake.services.wait()
                await asyncio.sleep(GATHER)

    async def _decide(self) -> int | None:
        """One look at everything; when to look again, if that is known. Raises Superseded, KubeError, TimeoutError."""
        began = time.perf_counter()
        # What is known changes while the record is written: what is said and shown after that belongs to what was decided on.
        claims, pools, services = dict(self._knowledge.claims), self._knowledge.pools, self._knowledge.services
        taken = self._knowledge.node_addresses
        result = allocate(claims.values(), pools, self._record.reservations, int(self._clock()), taken)
        metrics.ALLOCATION_SECONDS.set(time.perf_counter() - began)
        async with asyncio.timeout(DEADLINE):
            await self._record.write(result.reservations, self._knowledge.pools_text)
        self._proclaimer.want(tuple(_wanted(result)))
        self._tell(result, claims)
        _expose(usage(pools, result.reservations))
        await self._display.show(services, result.assignments)
        return result.again

    def _tell(self, result: Allocation, claims: Mapping[ServiceName, Claim]) -> None:
        """What is new since the last look, as Events and facts; after a start, since what Services show."""
        before = self._given if self._given is not None else _seen(result, claims)
        self._given = result.assignments
        for name in sorted({*before, *result.assignments}):
            old, new = before.get(name, _NOTHING), result.assignments.get(name, _NOTHING)
            addresses = {one.address for one in old} & {one.address for one in new}
            for one in new:
                if one.address not in addresses:
                    self._tell_address(name, one, given=True)
            for one in old:
                if one.address not in addresses:
                    self._tell_address(name, one, given=False)
        self._have(result.problems)
        self._tell_problems()

    def _have(self, problems: tuple[Problem, ...]) -> None:
        """Takes all that is wrong with what is to have addresses."""
        if problems != self.problems:
            self.problems = problems
            self._intake.problems.set()

    def _tell_address(self, name: ServiceName, one: Granted, *, given: bool) -> None:
        ref = name.ref
        log.info("address.given" if given else "address.released", service=str(name), address=str(one.address), pool=one.pool)
        fact = AddressGiven(instance=self._instance, object=object_name(ref), ip=str(one.address), pool=one.pool, given=given)
        self._reports.fact(fact, "address")
        uid = self._knowledge.uid_of(ref)
        if not uid:
            return
        reason = "AddressAllocated" if given else "AddressReleased"
        note = f"It has the address {one.address}, of pool {one.pool}" if given else f"It has the address {one.address} no more"
        self._recorder.record(ref, uid, reason=reason, note=note, type="Normal", action="Allocate")

    def _tell_problems(self) -> None:
        now = frozenset((*self._knowledge.problems, *self.problems))
        for problem in sorted(now - self._told):
            uid = self._knowledge.uid_of(problem.ref)
            if uid:
                self._recorder.record_problem(problem, uid, action="Allocate")
        self._told = now


def _expose(pools: Iterable[Used]) -> None:
    """Makes the metrics of pools say this and nothing else: who leads no more would contradict who does."""
    gauges = (metrics.POOL_SIZE, metrics.POOL_USED, metrics.POOL_WAITING)
    for gauge in gauges:
        gauge.clear()
    for one in pools:
        for gauge, count in zip(gauges, (one.size, one.used, one.waiting), strict=True):
            gauge.labels(one.pool, f"IPv{one.family}").set(count)


def _seen(result: Allocation, claims: Mapping[ServiceName, Claim]) -> dict[ServiceName, tuple[Granted, ...]]:
    """What Services show already."""
    return {
        name: tuple(one for one in has if claims[name].showed(one.address) is not None) for name, has in result.assignments.items()
    }


def _wanted(result: Allocation) -> list[WantedAddress]:
    """The addresses that are given, with those who are reached there."""
    users: dict[tuple[int, int], tuple[Granted, list[str]]] = {}
    for name, has in result.assignments.items():
        for one in has:
            key = (one.address.version, int(one.address))
            users.setdefault(key, (one, []))[1].append(str(name))
    return [
        WantedAddress(ip=str(one.address), pool=one.pool, services=tuple(sorted(names)))
        for _, (one, names) in sorted(users.items())
    ]
