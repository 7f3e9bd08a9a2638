"""The office of the leader: what it says and shows when somebody else has led, and when the world changes under its hands."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tests.integration.lb_world import Noted
from tests.messages import message

from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker, MemoryBus
from common.bus.protocol import Stored
from common.bus.streams import WANTED
from common.codec import decode
from common.contracts.addresses import read_wanted
from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.kube.errors import Conflict, NotFound
from common.kube.status import Writer
from common.pools import KEY
from common.runtime.reports import Reports
from common.testing import wait_until
from common.testing.objects import config_map, service
from common.tries import Tries
from haproxy_lb import office as module
from haproxy_lb.derive.classes import Class
from haproxy_lb.display import Display
from haproxy_lb.follow import Intake
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.office import Office
from haproxy_lb.proclaim import Proclaimer
from haproxy_lb.record import Record

POOLS = ObjectRef(ConfigMap.resource, "seaway-edge", "lb-pools")
RECORD = ObjectRef(ConfigMap.resource, "seaway-edge", "lb-reservations")
TURNS = 20  # of the loop that the API server takes for an answer, which are more than the bus takes

Raw = dict[str, Any]
Wish = tuple[str, ...]


class Api:
    """The API server as far as a leader asks it: one ConfigMap, and statuses that are taken."""

    def __init__(self) -> None:
        self.record: Raw | None = None
        self.shown: list[tuple[str, list[Raw]]] = []
        self.meanwhile: list[Callable[[], None]] = []  # what happens while it writes the record
        self.namespaces = {RECORD.namespace}
        self.rival = False  # whether somebody else is always quicker
        self.asked = 0  # how often the record was to be written
        self._versions = 0

    async def get(self, _: ObjectRef) -> Raw:
        await self._turns()
        if self.record is None:
            raise NotFound("there is no record")
        return self.record

    async def create(self, _: object, body: Raw, *, namespace: str) -> Raw:
        if namespace not in self.namespaces:
            self.asked += 1
            raise NotFound(f"there is no namespace {namespace}")
        return await self._write(body["data"])

    async def apply(self, _: ObjectRef, fields: Raw, **__: Any) -> Raw:
        if self.record is None or fields["metadata"]["resourceVersion"] != self.record["metadata"]["resourceVersion"]:
            raise Conflict("somebody else has written it")
        return await self._write(fields["data"])

    async def patch(self, ref: ObjectRef, patch: Raw, **_: Any) -> Raw:
        self.shown.append((ref.name, patch["status"]["loadBalancer"]["ingress"]))
        return {}

    async def _write(self, data: Mapping[str, str]) -> Raw:
        self.asked += 1
        await self._turns()
        if self.rival:
            raise Conflict("somebody else has written it")
        while self.meanwhile:
            self.meanwhile.pop(0)()
        self._versions += 1
        self.record = {"metadata": {"resourceVersion": str(self._versions)}, "data": data}
        return self.record

    async def _turns(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)


class Heard(MemoryBus):
    """A bus that notes each wish, as its addresses."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.wishes: list[Wish] = []

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, expected_last: int | None = None) -> Stored:
        stored = await super().publish(subject, body, headers, expected_last=expected_last)
        self.wishes.append(tuple(one.ip for one in read_wanted(decode(headers, body)).addresses))
        return stored


class Complete(Knowledge):
    """A replica that is complete, of what a test has put there."""

    @property
    def awaited(self) -> tuple[Any, ...]:
        return ()


class World:
    """A cluster, and balancers that know the same of it."""

    def __init__(self) -> None:
        broker = MemoryBroker()
        broker.ensure(WANTED)
        self.api = Api()
        self.bus = Heard(broker)
        self.knowledge = Complete("local", Class(), "node-1", POOLS, RECORD)
        self._reports = Reports(FactPublisher(MemoryBus(MemoryBroker())), service="haproxy-lb", cluster="local", instance="i")
        self._intake = Intake(self.knowledge, Noted(), self._reports)
        self._sequence = 0
        self.pools("pools: [{name: p, addresses: [192.0.2.0/28]}]")

    def pools(self, text: str) -> None:
        """The operator writes the ConfigMap of the pools."""
        self._take(config_map("lb-pools", {KEY: text}, "seaway-edge"))

    def service(self, name: str, *, shows: str = "", gone: bool = False) -> None:
        """A Service of ours comes, or goes."""
        made = service(name, 80, namespace="shop")
        made["spec"] |= {"type": "LoadBalancer", "loadBalancerClass": Class().name}
        if shows:
            ports = [{"port": 80, "protocol": "TCP"}]
            made["status"] = {"loadBalancer": {"ingress": [{"ip": shows, "ipMode": "Proxy", "ports": ports}]}}
        self._take(made, gone=gone)

    def balancer(self) -> Office:
        """One more balancer."""
        session: Any = self.api
        recorder: Any = Silent()
        writer = Writer(session, "haproxy-lb")
        return Office(
            self.knowledge,
            self._intake,
            Record(session, writer, RECORD),
            display=Display(writer),
            recorder=recorder,
            reports=self._reports,
            proclaimer=Proclaimer(self.bus, cluster="local", service="haproxy-lb", instance="i"),
            instance="i",
        )

    async def wishes(self, *addresses: str) -> None:
        """Waits until this is the wish."""
        await wait_until(lambda: self.bus.wishes[-1:] == [addresses])

    def _take(self, raw: Raw, *, gone: bool = False) -> None:
        self._sequence += 1
        self.knowledge.change([message(raw, self._sequence, gone=gone)])
        self._intake.services.set()


class Silent:
    """A recorder whose Events nobody reads."""

    def record(self, *_: Any, **__: Any) -> None:
        return

    def record_problem(self, *_: Any, **__: Any) -> None:
        return


def noted_pauses(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each pause that a leader makes after a failure, none of which takes time."""
    pauses: list[None] = []

    class Quick(Tries):
        async def pause(self) -> None:
            pauses.append(None)
            await asyncio.sleep(0)

    monkeypatch.setattr(module, "Tries", Quick)
    return pauses


def pool_metrics(pool: str) -> list[float | None]:
    """What is exposed of a pool: its addresses, those that are used, those that wait."""
    names = ("", "_used", "_waiting")
    labels = {"pool": pool, "family": "IPv4"}
    return [REGISTRY.get_sample_value(f"seaway_lb_pool_addresses{name}", labels) for name in names]


@contextlib.asynccontextmanager
async def leading(office: Office) -> AsyncIterator[None]:
    """A balancer leads, and loses its office at the end of the context."""
    task = asyncio.create_task(office.hold())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    with contextlib.suppress(asyncio.CancelledError):
        task.result()


async def test_a_leader_that_leads_again_withdraws_no_address_that_another_one_gave_meanwhile() -> None:
    world = World()
    first, second = world.balancer(), world.balancer()
    world.service("a")
    async with leading(first):
        await world.wishes("192.0.2.0")
    world.service("b")
    async with leading(second):
        await world.wishes("192.0.2.0", "192.0.2.1")
    world.service("c")
    async with leading(first):
        await world.wishes("192.0.2.0", "192.0.2.1", "192.0.2.2")
    assert [len(wish) for wish in world.bus.wishes] == [1, 2, 3]


async def test_a_service_that_is_deleted_during_the_first_look_costs_nothing_but_its_address() -> None:
    world = World()
    world.service("web", shows="192.0.2.0")
    world.api.meanwhile.append(lambda: world.service("web", shows="192.0.2.0", gone=True))
    async with leading(world.balancer()):
        await world.wishes()


async def test_a_service_that_comes_while_the_record_is_written_keeps_what_it_shows() -> None:
    world = World()
    world.service("a")
    world.api.meanwhile.append(lambda: world.service("web", shows="192.0.2.7"))
    async with leading(world.balancer()):
        await world.wishes("192.0.2.0", "192.0.2.7")
    assert [name for name, _ in world.api.shown if name != "a"] == []


async def test_a_leader_whose_record_cannot_be_made_asks_with_pauses_and_tells_what_to_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.api.namespaces = set()
    world.service("a")
    office = world.balancer()
    pauses = noted_pauses(monkeypatch)
    async with leading(office):
        await wait_until(lambda: len(pauses) >= 3)
        assert world.api.asked <= len(pauses) + 1
        [problem] = office.problems
        assert str(problem) == (
            "configmaps seaway-edge/lb-reservations: the record of addresses cannot be made, since there is no namespace 'seaway-edge', "
            "so no address is given; create the namespace, or name a ConfigMap of another one by --reservations-configmap"
        )
        world.api.namespaces = {"seaway-edge"}
        await world.wishes("192.0.2.0")
        assert office.problems == ()


async def test_a_leader_whose_record_others_write_each_time_asks_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.api.rival = True
    world.service("a")
    pauses = noted_pauses(monkeypatch)
    async with leading(world.balancer()):
        await wait_until(lambda: len(pauses) >= 3)
        assert world.api.asked <= len(pauses) + 1
        world.api.rival = False
        await world.wishes("192.0.2.0")


async def test_who_leads_no_more_tells_nothing_of_pools_and_a_leader_nothing_of_pools_that_are_gone() -> None:
    world = World()
    world.service("a")
    async with leading(world.balancer()):
        await world.wishes("192.0.2.0")
        assert pool_metrics("p") == [16, 1, 0]
        world.pools("pools: [{name: q, addresses: [192.0.2.0/29]}]")
        await wait_until(lambda: pool_metrics("q") == [8, 1, 0])
        assert pool_metrics("p") == [None, None, None]
    assert pool_metrics("q") == [None, None, None]
