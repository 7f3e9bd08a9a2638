"""When a node can have addresses: it loses them as soon as its HAProxy is gone, and not because HAProxy begins anew."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.process import validate
from common.testing import wait_until
from common.testing.debian import Installation
from haproxy_lb.model import Treatment
from tests.conftest import needs
from tests.lb.world import SOON, VIP, Balancer, balancer, service

BOTH = True
pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]
A, B = "10.82.0.10", "10.82.0.11"
NEVER = 3600.0


@pytest.fixture
async def lb(tmp_path: Path, installation: Installation) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path, installation) as world:
        yield world


@asynccontextmanager
async def watched(lb: Balancer) -> AsyncIterator[list[str]]:
    """Notes why the node was not ready, as often as anybody could ask."""
    found: list[str] = []

    async def look() -> None:
        while True:
            found.extend(filter(None, [lb.applier.unready]))
            await asyncio.sleep(0.001)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()
        await asyncio.wait({looking})


async def test_a_node_stays_ready_while_haproxy_begins_anew(lb: Balancer) -> None:
    first = service(await lb.network.serve(A))
    await lb.have(first)
    worker = lb.worker
    async with watched(lb) as unready:
        await lb.have(first, service([], Treatment(affinity=77), name="new", fronts=[(VIP, 81)]))
    assert lb.worker != worker
    assert unready == []


async def test_a_node_stays_ready_when_what_it_told_was_refused_and_is_mended_at_once(
    lb: Balancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await lb.network.serve(A, B)
    await lb.have(service([a]))
    assert not (await validate([*lb.network.router.enter, "nft", "flush", "ruleset"], timeout=5)).code
    troubles: list[str] = []
    lost = lb.applier._lost

    def noted(error: Exception) -> None:
        troubles.append(str(error))
        lost(error)

    monkeypatch.setattr(lb.applier, "_lost", noted)
    async with watched(lb) as unready:
        await lb.have(service([b], fronts=[(VIP, 81)]))
    assert "nft" in troubles[0]
    assert (await lb.network.ask(port=81)).by == B
    assert unready == []


async def test_a_node_is_not_ready_as_soon_as_its_haproxy_is_gone(lb: Balancer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haproxy_lb.trouble.LASTING", NEVER)
    await lb.have(service(await lb.network.serve(A)))
    assert lb.applier.unready is None
    await lb.haproxy.stop(1, signal.SIGKILL)
    await wait_until(lambda: "HAProxy is not there" in str(lb.applier.unready), within=SOON)
