"""Change under load: nobody's connection fails when endpoints are replaced, and many Services are had soon."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.testing import wait_until
from common.testing.debian import Installation
from haproxy_lb.model import Backend, Endpoint, Frontend
from haproxy_lb.slots import Kind
from tests.conftest import needs
from tests.lb.world import SOON, VIP, Balancer, balancer, service

BOTH = True
pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]


@pytest.fixture
async def lb(tmp_path: Path, installation: Installation) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path, installation, slots={Kind(): 2048}) as world:
        yield world


async def test_all_endpoints_are_replaced_under_load_without_an_error_or_a_reload(lb: Balancer) -> None:
    ports = range(80, 85)
    everybody = await lb.network.serve(*(f"10.82.0.{n}" for n in range(10, 110)))
    old, new = everybody[:50], everybody[50:]

    def services(endpoints: list[Endpoint]) -> list[tuple[Backend, list[Frontend]]]:
        return [service(endpoints, name=f"s{port}", fronts=[(VIP, port)]) for port in ports]

    await lb.have(*services(old))
    worker, asked, failed, going = lb.worker, 0, 0, True

    async def client(port: int) -> None:
        nonlocal asked, failed
        while going:
            answer = await lb.network.ask(port=port)
            failed += not answer.by
            asked += 1

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client(ports[n % 5])) for n in range(40)]
        await wait_until(lambda: asked > 200, within=SOON)
        for step in range(1, 51):
            await lb.have(*services(old[step:] + new[:step]))
        await wait_until(lambda: not lb.applier._waiting, within=SOON)
        replaced = dict(lb.network.served)
        before = asked
        await wait_until(lambda: asked > before + 200, within=SOON)
        going = False
        await asyncio.wait(clients)
    gone = {one.address for one in old}
    assert failed == 0
    assert lb.worker == worker
    assert sum(count - replaced.get(address, 0) for address, count in lb.network.served.items() if address in gone) <= 40
    assert len(lb.network.served.keys() - gone) == 50
    print(f"{asked} connections, {lb.runtime.commands} commands")


@pytest.mark.slow
async def test_a_thousand_services_are_had_and_are_the_same_after_a_kill(tmp_path: Path, installation: Installation) -> None:
    async with balancer(tmp_path, installation, slots={Kind(): 512}) as lb:
        (endpoint,) = await lb.network.serve("10.82.0.10")
        elsewhere = [Endpoint(f"10.82.{n // 200 + 1}.{n % 200 + 1}", 8080) for n in range(9000)]
        many = [service([endpoint, *elsewhere[9 * n : 9 * n + 9]], name=f"s{n}", fronts=[(VIP, 1000 + n)]) for n in range(1000)]
        began = time.monotonic()
        await lb.have(*many)
        await wait_until(lambda: len(lb.applier.slots) == 1000 and lb.applier.settled, within=6 * SOON)
        print(f"1000 Services of 10 endpoints: {time.monotonic() - began:.2f} s, {lb.runtime.commands} commands")
        assert (await lb.network.ask(port=1999)).by == endpoint.address
        worker, before = lb.worker, await lb.whole()
        began = time.monotonic()
        await lb.have(*many, service([endpoint], name="last", fronts=[(VIP, 999)]))
        print(f"one more: {1000 * (time.monotonic() - began):.1f} ms")
        assert (await lb.network.ask(port=999)).by == endpoint.address
        assert lb.worker == worker
        await lb.have(*many)
        began = time.monotonic()
        os.kill(worker, signal.SIGKILL)

        async def whole() -> bool:
            if not lb.applier.settled or lb.worker == worker:
                return False
            tables, servers, kernel = await lb.whole()
            mine = None if servers is None else {slot: servers.get(slot) for slot, given in before[1].items() if given}
            return (tables, mine, kernel) == (before[0], {slot: given for slot, given in before[1].items() if given}, before[2])

        await wait_until(whole, within=6 * SOON)
        print(f"killed, whole again: {time.monotonic() - began:.2f} s")
        assert len((await lb.whole())[1]) == len(before[1]), "it has begun with the slots that there were"
