"""A connection's way from a client through the kernel and HAProxy to an endpoint, all of them real."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import needs
from tests.lb.world import VIP, VIP6, Balancer, balancer, service

pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]


@pytest.fixture
async def lb(tmp_path: Path) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path) as world:
        yield world


async def test_a_service_is_answered_at_its_addresses_of_both_families(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve("10.82.0.10")))
    assert (await lb.network.ask(VIP, 80)).by == "10.82.0.10"
    assert (await lb.network.ask(VIP6, 80)).by == "10.82.0.10"
    assert (await lb.network.ask(VIP, 81)).by == ""
