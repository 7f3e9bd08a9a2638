"""What a balancer tells of a real HAProxy's checks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.bus.memory import MemoryBroker, MemoryBus
from common.bus.streams import WANTED, ensure_streams
from common.codec import decode
from common.contracts.balancers import BalancerFound, UnwellEndpoint, read_found
from common.contracts.subjects import wanted_subject
from common.testing import wait_until
from haproxy_lb import pulse
from haproxy_lb.model import Check, Endpoint, Treatment
from haproxy_lb.pulse import Pulse
from haproxy_lb.runtime import Runtime
from tests.conftest import needs
from tests.lb.world import SOON, Balancer, balancer, service

pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]
A, B = "10.82.0.10", "10.82.0.11"


@pytest.fixture
async def lb(tmp_path: Path) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path) as world:
        yield world


async def test_an_endpoint_that_does_not_answer_its_checks_is_told_on_the_bus_and_so_is_a_haproxy_that_is_away(
    lb: Balancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "LOOK", 0.1)
    bus = MemoryBus(MemoryBroker())
    await ensure_streams(bus, replicas=1)

    async def told() -> BalancerFound | None:
        last = await bus.get_last(WANTED.name, wanted_subject("local", "haproxy-lb", "node/edge-1"))
        return read_found(decode(last.headers, last.body)) if last is not None else None

    async def tells(wanted: BalancerFound) -> bool:
        return await told() == wanted

    checks = Runtime(lb.directory / "admin.sock", lb.frame.tables)
    path = lb.applier
    teller = Pulse(bus, checks, cluster="local", node="edge-1", slots=lambda: path.slots, trouble=lambda: path.trouble)
    task = asyncio.create_task(teller.run())
    try:
        treatment = Treatment(check=Check(interval=0.1, rise=1, fall=1))
        await lb.have(service([*await lb.network.serve(A), Endpoint(B, 8080)], treatment))
        unwell = UnwellEndpoint(namespace="shop", service="web", port=80, endpoint=f"{B}:8080")
        await wait_until(lambda: tells(BalancerFound(node="edge-1", unwell=(unwell,))), within=SOON)
        await lb.network.serve(B)
        await wait_until(lambda: tells(BalancerFound(node="edge-1")), within=SOON)
        await lb.haproxy.stop(5)

        async def complains() -> bool:
            said = await told()
            return said is not None and "HAProxy is not there" in said.trouble

        await wait_until(complains, within=SOON)
    finally:
        task.cancel()
        await asyncio.wait({task})
