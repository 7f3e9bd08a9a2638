"""When a node can have addresses: it loses them as soon as its HAProxy is gone, and not because HAProxy begins anew."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.backoff import Backoff
from common.process import validate
from common.testing import wait_until
from common.testing.debian import Installation
from common.tries import Tries
from haproxy_lb import effects
from haproxy_lb.model import Peer, Treatment
from tests.conftest import needs
from tests.lb.world import SOON, VIP, Balancer, balancer, service

BOTH = True
pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]
A, B = "10.82.0.10", "10.82.0.11"
NEVER = 3600.0
PEERS = (Peer("here", "127.0.0.1", 14495), Peer("two", "127.0.0.1", 14496))


@pytest.fixture
async def lb(tmp_path: Path, installation: Installation) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path, installation) as world:
        yield world


def reloads() -> float:
    """How often a HAProxy was told to begin anew."""
    return float(effects.RELOADS.labels("configuration")._value.get())


def had(lb: Balancer) -> bool:
    """Whether HAProxy has what it can have without a reload."""
    return lb.applier._live is not None and lb.applier._since is None and not lb.applier._busy


def looked(lb: Balancer) -> bool:
    """All is read back now, and not only once a minute."""
    lb.runtime.gone()
    return True


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


async def taken(lb: Balancer) -> socket.socket:
    """Somebody listens where HAProxy should after its next reload."""
    somebody = await lb.network.router.socket(socket.AF_INET)
    somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    somebody.bind((PEERS[0].address, PEERS[0].port))
    somebody.listen()
    return somebody


async def test_a_reload_that_haproxy_does_not_take_is_told_until_it_does_and_holds_nothing_else_up(
    lb: Balancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haproxy_lb.configure._TAKEN", NEVER)
    monkeypatch.setattr(lb.applier._configuration, "_refusals", Tries(Backoff(first=0.3, most=0.3)))
    (a,) = await lb.network.serve(A)
    await lb.have(service([a]))
    worker, before = lb.worker, reloads()
    with await taken(lb):
        lb.peers = PEERS
        async with watched(lb) as unready:
            for port in (81, 82):
                lb.want(service([a], fronts=[(VIP, port)]))
                await wait_until(lambda: "did not begin anew" in str(lb.applier.trouble) and had(lb), within=SOON)
                assert (await lb.network.ask(port=port)).by == A
            await wait_until(lambda: looked(lb) and reloads() > before + 1, within=SOON)
            await wait_until(lambda: had(lb), within=SOON)
            assert lb.applier.trouble is not None, "it is told for as long as it lasts"
        assert (lb.worker, unready) == (worker, [])
    await wait_until(lambda: looked(lb) and lb.applier.settled, within=2 * SOON)
    assert lb.worker != worker


async def test_a_haproxy_that_did_not_take_a_reload_comes_back_with_what_it_had_when_it_is_killed(lb: Balancer) -> None:
    (a,) = await lb.network.serve(A)
    await lb.have(service([a]))
    worker = lb.worker
    with await taken(lb):
        lb.peers = PEERS
        lb.want(service([a], fronts=[(VIP, 81)]))
        await wait_until(lambda: "did not begin anew" in str(lb.applier.trouble), within=2 * SOON)
        written = lb.directory / "haproxy.cfg"
        await wait_until(lambda: str(PEERS[0].port) not in written.read_text(), within=SOON)
        os.kill(worker, signal.SIGKILL)

        async def back() -> bool:
            return had(lb) and lb.worker != worker and (await lb.network.ask(port=81)).by == A

        await wait_until(back, within=2 * SOON)
        assert lb.applier.unready is None


async def test_a_service_that_begins_where_haproxy_cannot_have_all_is_not_ready(lb: Balancer) -> None:
    with await taken(lb):
        lb.peers = PEERS
        async with lb.another_applier() as other:
            lb.want(service([], Treatment(affinity=77)))
            other.want(lb.wanted)
            other.release()
            await wait_until(lambda: "no slot for shop/web" in str(other.unready), within=2 * SOON)
