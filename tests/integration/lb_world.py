"""A balancer between a real API server and a real bus, with a data path that only notes what it is asked for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.watcher_world import kubeconfig_of, watcher
from tests.packaging import ROOT

from common.bus.facts import FactPublisher
from common.bus.nats import NatsBus, connect
from common.bus.settings import BusSettings
from common.bus.streams import WANTED
from common.codec import decode
from common.contracts.addresses import AddressesWanted, read_wanted
from common.contracts.objects import Service
from common.contracts.refs import ObjectRef, Resource
from common.contracts.subjects import wanted_subject
from common.kube.errors import AlreadyExists, NotFound
from common.kube.events import Recorder
from common.kube.session import KubeSession, Scope
from common.kube.status import Writer
from common.pools import KEY
from common.runtime.reports import Reports
from common.testing import wait_until
from common.testing.kubernetes import KubeApi
from common.testing.nats import NatsServer
from haproxy_lb.display import Display
from haproxy_lb.follow import DataPath, Intake
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.model import Wanted
from haproxy_lb.office import Office
from haproxy_lb.proclaim import Proclaimer
from haproxy_lb.record import Record
from haproxy_lb.settings import Settings

SOON = 20.0
ACCESS = ROOT / "deploy/haproxy-lb/access.yaml"
EDGE = "seaway-edge"
NAMESPACES = Resource("", "namespaces")
CONFIGMAPS = Resource("", "configmaps")
SERVICES = Resource("", "services")
EVENTS = Resource("events.k8s.io", "events")
SLICES = Resource("discovery.k8s.io", "endpointslices")
POOLS = ObjectRef(CONFIGMAPS, EDGE, "lb-pools")
RECORD = ObjectRef(CONFIGMAPS, EDGE, "lb-reservations")

Raw = dict[str, Any]


class Noted:
    """The data path: what it was asked for last."""

    def __init__(self) -> None:
        self.wanted = Wanted()
        self.released = False
        self.trouble: str | None = None

    def want(self, wanted: Wanted) -> None:
        """See DataPath."""
        self.wanted = wanted

    def release(self) -> None:
        """See DataPath."""
        self.released = True


@dataclass
class Balancer:
    """One balancer."""

    path: Noted
    knowledge: Knowledge
    office: Office


@dataclass
class World:
    """A cluster with a bus."""

    api: KubeApi
    kube: KubeSession
    nats: NatsServer
    kubeconfig: Path  # of the balancer: its own token

    async def pools(self, text: str) -> None:
        """Writes the ConfigMap of the pools."""
        await self.kube.apply(POOLS, {"data": {KEY: text}}, manager="operator", force=True)

    async def service(self, name: str, *ports: int | str, namespace: str = "default", **spec: Any) -> ObjectRef:
        """Makes a Service of our class. `annotations` are without their prefix."""
        annotations: Mapping[str, str] = spec.pop("annotations", {})
        listed = []
        for port in ports or (80,):
            number, _, protocol = str(port).partition("/")
            listed.append({"name": f"p{number}{protocol.lower()}", "port": int(number), "protocol": protocol or "TCP"})
        body = {
            "metadata": {"name": name, "annotations": {f"seaway.dev/{key}": value for key, value in annotations.items()}},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": "seaway.dev/haproxy", "ports": listed, **spec},
        }
        await self.kube.create(SERVICES, body, namespace=namespace)
        return ObjectRef(SERVICES, namespace, name)

    async def shown(self, ref: ObjectRef) -> list[Raw]:
        """What the status of a Service shows."""
        raw = await self.kube.get(ref)
        return list(raw.get("status", {}).get("loadBalancer", {}).get("ingress", []))

    async def addresses(self, ref: ObjectRef) -> list[str]:
        """The addresses that a Service shows."""
        return [one["ip"] for one in await self.shown(ref)]

    async def shows(self, ref: ObjectRef, *addresses: str) -> None:
        """Waits until a Service shows exactly these addresses."""

        async def does() -> bool:
            return await self.addresses(ref) == [*addresses]

        await wait_until(does, within=SOON, every=0.02)

    async def told(self, ref: ObjectRef, reason: str) -> str:
        """Waits for an Event about an object; its note."""
        notes: list[str] = []

        async def there() -> bool:
            events = (await self.kube.list(EVENTS, Scope(namespace=ref.namespace))).items
            notes[:] = [one["note"] for one in events if one["reason"] == reason and one["regarding"]["name"] == ref.name]
            return bool(notes)

        await wait_until(there, within=SOON, every=0.05)
        return notes[0]

    async def wish(self) -> AddressesWanted | None:
        """What the bus says to be wanted."""
        bus = await connect(BusSettings(url=self.nats.url))
        try:
            last = await bus.get_last(WANTED.name, wanted_subject("local", "haproxy-lb", "addresses"))
            return read_wanted(decode(last.headers, last.body)) if last is not None else None
        finally:
            await bus.close()

    async def gone(self, ref: ObjectRef) -> None:
        """Deletes an object and waits until nobody finds it."""
        await self.kube.delete(ref)

        async def away() -> bool:
            with contextlib.suppress(NotFound):
                await self.kube.get(ref)
                return False
            return True

        await wait_until(away, within=SOON)

    async def clear(self) -> None:
        """Takes away what a test made."""
        for listed in (await self.kube.list(SERVICES)).items:
            if listed["spec"]["type"] == "LoadBalancer":
                await self.gone(ObjectRef(SERVICES, listed["metadata"]["namespace"], listed["metadata"]["name"]))
        for ref in (RECORD, POOLS):
            with contextlib.suppress(NotFound):
                await self.gone(ref)


@contextlib.asynccontextmanager
async def world(api: KubeApi, kube: KubeSession, nats: NatsServer, directory: Path) -> AsyncIterator[World]:
    """A cluster whose watcher fills the bus."""
    for name in (EDGE, "other"):
        with contextlib.suppress(AlreadyExists):
            await kube.create(NAMESPACES, {"metadata": {"name": name}})
    await api.kubectl("apply", "--namespace", EDGE, "--filename", str(ACCESS))
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(kubeconfig_of(api, await api.token_for(EDGE, "haproxy-lb")))
    async with watcher(directory, "w", api, nats) as process:
        await process.ready()
        made = World(api, kube, nats, kubeconfig)
        try:
            yield made
        finally:
            await made.clear()


@contextlib.asynccontextmanager
async def balancer(world: World, name: str = "lb-1", *, path: DataPath | None = None, **settings: Any) -> AsyncIterator[Balancer]:
    """A balancer that leads, until the end of the context. It may do what deploy/ permits it, and no more. `path` is its data path, if it
    is not one that only notes.
    """
    async with contextlib.AsyncExitStack() as stack:
        kube = await stack.enter_async_context(KubeSession.from_kubeconfig(str(world.kubeconfig)))
        bus = await connect(BusSettings(url=world.nats.url))
        stack.push_async_callback(bus.close)
        made, tasks = _compose(kube, bus, Settings(instance=name, lease_name="", **settings), path)
        running = [asyncio.create_task(task) for task in tasks]
        try:
            yield made
        finally:
            for task in running:
                task.cancel()
            results = await asyncio.gather(*running, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                    raise result


def _compose(kube: KubeSession, bus: NatsBus, settings: Settings, path: DataPath | None) -> tuple[Balancer, list[Any]]:
    facts = FactPublisher(bus)
    reports = Reports(facts, service="haproxy-lb", cluster=settings.cluster, instance=settings.instance)
    known = (settings.cluster, settings.ours, settings.node, settings.pools, settings.reservations)
    knowledge = Knowledge(*known, peers=settings.peers_among)
    noted = Noted()
    intake = Intake(knowledge, path or noted, reports)
    writer = Writer(kube, "haproxy-lb")
    recorder = Recorder(kube, "haproxy-lb", settings.instance)
    office = Office(
        knowledge,
        intake,
        Record(kube, writer, settings.reservations),
        display=Display(writer),
        recorder=recorder,
        reports=reports,
        proclaimer=Proclaimer(bus, cluster=settings.cluster, service="haproxy-lb", instance=settings.instance),
        instance=settings.instance,
    )
    follow = intake.follow(bus, settings.cluster, (settings.pools, settings.reservations))
    return Balancer(noted, knowledge, office), [facts.run(), recorder.run(), follow, office.hold()]


def front_addresses(balancer: Balancer) -> set[tuple[str, int, str]]:
    """Where the data path shall answer, and for which Service."""
    return {(key.address, key.port, str(one.backend)) for key, one in balancer.path.wanted.frontends.items()}


__all__ = ["POOLS", "RECORD", "SERVICES", "SOON", "Balancer", "Service", "World", "balancer", "front_addresses", "world"]
