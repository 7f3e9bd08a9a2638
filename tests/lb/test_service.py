"""From a Service of a real API server to a connection that is answered: watcher, bus, balancer, HAProxy and kernel, all of them real."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.contracts.refs import ObjectRef
from common.kube.session import KubeSession
from common.testing import wait_until
from common.testing.kubernetes import kube_api
from common.testing.nats import nats_server
from common.testing.objects import endpoint_slice
from tests.conftest import needs
from tests.integration.lb_world import SLICES, SOON, World, balancer, world
from tests.lb.world import Network, network, running

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(180),
    needs("haproxy"),
    needs("nft", package="nftables"),
    needs("ip", package="iproute2"),
]
A, B = "10.82.0.10", "10.82.0.11"
POOLS = "pools: [{name: public, addresses: [192.0.2.0/24], quarantine: 0s}]"


class Whole(World):
    """A cluster, and the network of its balancer."""

    network: Network

    async def endpoints(self, service: str, *addresses: str) -> None:
        """Makes the endpoints of a Service be these."""
        made = endpoint_slice(service, *addresses, port_name="p80") | {"apiVersion": "discovery.k8s.io/v1"}
        await self.kube.apply(ObjectRef(SLICES, "default", f"{service}-1"), made, manager="test", force=True)

    async def answered(self, address: str, by: set[str], port: int = 80) -> None:
        """Waits until a connection to an address is answered by one of these, and no other."""

        async def does() -> bool:
            return (await self.network.ask(address, port)).by in by

        await wait_until(does, within=SOON, every=0.005)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Whole]:
    (tmp_path / "haproxy").mkdir()
    async with (
        kube_api() as api,
        KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube,
        nats_server() as nats,
        network() as made,
        running(made, tmp_path / "haproxy") as haproxy,
        world(api, kube, nats, tmp_path) as cluster,
        balancer(cluster, path=haproxy.applier),
    ):
        whole = Whole(cluster.api, cluster.kube, cluster.nats, cluster.kubeconfig)
        whole.network = made
        made.router.ip("route add local 192.0.2.0/24 dev lo")  # it holds all of them, so who asks too early is refused at once
        await whole.pools(POOLS)
        yield whole


async def test_a_service_is_answered_and_follows_its_endpoints_and_its_rules(there: Whole) -> None:
    await there.network.serve(A, B)
    web = await there.service("web", 80)
    await there.endpoints("web", A)
    await there.answered("192.0.2.0", {A})
    await there.endpoints("web", B)
    await there.answered("192.0.2.0", {B})

    await there.kube.patch(web, {"spec": {"loadBalancerSourceRanges": ["203.0.113.0/24"]}}, manager="t")
    await there.answered("192.0.2.0", {""})
    await there.kube.patch(web, {"spec": {"loadBalancerSourceRanges": None}}, manager="t")
    await there.answered("192.0.2.0", {B})

    await there.kube.patch(web, {"metadata": {"annotations": {"seaway.dev/load-balancer-ips": "192.0.2.77"}}}, manager="t")
    await there.answered("192.0.2.77", {B})
    await there.answered("192.0.2.0", {""})
    await there.gone(web)
    await there.answered("192.0.2.77", {""})


async def test_how_long_it_takes_from_a_service_to_its_first_answer(there: Whole) -> None:
    """Measured, and shown with `-s`; a machine that is busy fails nothing."""
    await there.network.serve(A)
    took = []
    for number in range(25):
        name = f"s{number:02}"
        await there.endpoints(name, A)
        began = time.perf_counter()
        await there.service(name, 80)
        while not (await there.network.ask(f"192.0.2.{number}")).by:
            assert time.perf_counter() - began < SOON
            await asyncio.sleep(0.001)
        took.append(time.perf_counter() - began)
    took.sort()
    print(f"Service to first answer: median {took[12] * 1000:.0f} ms, worst {took[-1] * 1000:.0f} ms")
    assert len(took) == 25
