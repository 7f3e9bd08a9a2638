"""From a Service of a real API server to a connection that is answered: watcher, bus, balancer, HAProxy and kernel, all of them real."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.contracts.refs import ObjectRef
from common.testing.debian import Installation
from tests.conftest import needs
from tests.integration.lb_world import SLICES
from tests.lb.whole import Whole, whole

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(180),
    needs("haproxy"),
    needs("nft", package="nftables"),
    needs("ip", package="iproute2"),
]
A, B = "10.82.0.10", "10.82.0.11"


@pytest.fixture
async def there(tmp_path: Path, installation: Installation) -> AsyncIterator[Whole]:
    async with whole(tmp_path, installation, node="edge-1") as there:
        yield there


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


async def test_a_local_service_is_answered_by_its_own_node_and_by_others_only_if_told(there: Whole) -> None:
    await there.network.serve(A, B)
    local = await there.service("local", 80, externalTrafficPolicy="Local")
    await there.endpoints("local", B, node="edge-2")
    await there.answered("192.0.2.0", {""})
    await there.kube.patch(local, {"metadata": {"annotations": {"seaway.dev/local-fallback": "true"}}}, manager="t")
    await there.answered("192.0.2.0", {B})
    await there.endpoints("local", A, node="edge-1", suffix="2")
    await there.answered("192.0.2.0", {A})
    assert {(await there.network.ask("192.0.2.0")).by for _ in range(10)} == {A}, "others stand by while the own node has one"
    await there.gone(ObjectRef(SLICES, "default", "local-2"))
    await there.answered("192.0.2.0", {B})


async def test_an_endpoint_that_ends_keeps_its_connections_and_gets_no_more(there: Whole) -> None:
    await there.network.serve(A, B)
    await there.service("web", 80)
    await there.endpoints("web", A)
    await there.answered("192.0.2.0", {A})
    _, reader, writer = await there.network.connect("192.0.2.0", word="stay")
    await there.endpoints("web", A, ending=True)
    await there.answered("192.0.2.0", {A})  # better than nobody
    await there.endpoints("web", B, suffix="2")
    await there.answered("192.0.2.0", {B})
    assert {(await there.network.ask("192.0.2.0")).by for _ in range(10)} == {B}
    writer.write(b"on\n")
    assert await reader.readline() == b"on\n"
