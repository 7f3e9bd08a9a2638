"""All of a Service's way: a real API server, watcher, bus and balancer, and a real HAProxy in a network of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from common.contracts.refs import ObjectRef
from common.kube.session import KubeSession
from common.testing import wait_until
from common.testing.debian import THIS_MACHINE, Installation
from common.testing.kubernetes import kube_api
from common.testing.nats import nats_server
from common.testing.objects import endpoint_slice
from tests.integration.lb_world import SLICES, SOON, World, balancer, world
from tests.lb.world import Balancer, Network, network, running

POOLS = "pools: [{name: public, addresses: [192.0.2.0/24], quarantine: 0s}]"


class Whole(World):
    """A cluster, and the network of its balancer."""

    network: Network
    haproxy: Balancer

    async def endpoints(self, service: str, *addresses: str, suffix: str = "1", node: str = "", ending: bool = False) -> None:
        """Makes a slice of the endpoints of a Service be these, on a node, or about to end."""
        made = endpoint_slice(service, *addresses, port_name="p80", suffix=suffix)
        for one in made["endpoints"]:
            one.update({"nodeName": node} if node else {})
            one.update({"conditions": {"ready": False, "serving": True, "terminating": True}} if ending else {})
        await self.kube.apply(ObjectRef(SLICES, "default", f"{service}-{suffix}"), made, manager="test", force=True)

    async def answered(self, address: str, by: set[str], port: int = 80) -> None:
        """Waits until a connection to an address is answered by one of these, and no other."""

        async def does() -> bool:
            return (await self.network.ask(address, port)).by in by

        await wait_until(does, within=SOON, every=0.005)


@asynccontextmanager
async def whole(directory: Path, installation: Installation = THIS_MACHINE, **settings: Any) -> AsyncIterator[Whole]:
    """A cluster whose balancer has a pool and no Services yet; `settings` are the balancer's."""
    (directory / "haproxy").mkdir()
    async with (
        kube_api() as api,
        KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube,
        nats_server() as nats,
        network() as made,
        running(made, directory / "haproxy", installation) as haproxy,
        world(api, kube, nats, directory) as cluster,
        balancer(cluster, path=haproxy.applier, **settings),
    ):
        there = Whole(cluster.api, cluster.kube, cluster.nats, cluster.kubeconfig)
        there.network, there.haproxy = made, haproxy
        made.router.ip("route add local 192.0.2.0/24 dev lo")  # it holds all of them, so who asks too early is refused at once
        await there.pools(POOLS)
        yield there
