"""A Service of type LoadBalancer from the API server to its first answered connection, an endpoint's last one, and many Services at once.

A real API server with its watcher and bus, and a real HAProxy in a network of its own; the balancer runs in this process. Times begin
when the API server has answered, for until then nobody can know of it.

"Had anew" is a cold start: HAProxy and the balancer begin with nothing but what is on the bus. Then HAProxy's worker is killed, and is
whole when a client is answered, and all that HAProxy and the kernel hold is what it was.
"""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from common.contracts.refs import ObjectRef
from common.testing import wait_until
from common.testing.objects import endpoint_slice
from tests.bench.effort import Effort, program
from tests.bench.endpoints import answers, served
from tests.bench.memory import largest
from tests.bench.rows import Row, latency_rows, percentile
from tests.integration.lb_world import SERVICES, SLICES, balancer
from tests.lb.whole import Whole, whole
from tests.lb.world import running

ENDPOINTS: Final = ("10.82.0.10",)  # of a new Service
MANY: Final = tuple(f"10.82.0.{n}" for n in range(40, 50))  # of each of the many
_OTHERS: Final = ("10.82.0.30", "10.82.0.31")
_PORTS: Final = 20  # Services that share an address
_AT_ONCE: Final = 16  # that are made at the same time
_WITHIN: Final = 120.0
_POOL: Final = "pools: [{name: public, addresses: [192.0.2.0/24], quarantine: 0s}]"


async def bench(effort: Effort) -> list[Row]:
    """One by one, then many."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="seaway-bench-lb-") as made:
        async with whole(Path(made)) as there:
            await there.network.serve(*ENDPOINTS, *_OTHERS)
            rows += latency_rows("new balanced Service", [await _made(there, n) for n in range(effort.routes)], p50=50, p99=250)
            gone = [await _left(there, n) for n in range(effort.routes)]
            rows.append(
                Row(name="endpoint gone, last connection, p99", value=percentile(gone, 0.99) * 1000, unit="ms", goal="<= 100")
            )
            (Path(made) / "nginx").mkdir()
            async with served(there.network, program("nginx", "apt-get install nginx"), Path(made) / "nginx", MANY):
                await _many(there, effort.balanced)
                rows += await _anew(there, Path(made), effort.balanced)
    return rows


async def _answers(there: Whole, address: str, port: int, by: Sequence[str]) -> bool:
    return (await there.network.ask(address, port)).by in by


async def _made(there: Whole, number: int) -> float:
    """Seconds until a new Service, whose endpoints are there, is answered. It is gone again at the end."""
    name = f"new-{number}"
    await there.endpoints(name, ENDPOINTS[0])
    ref = await there.service(name, 80)
    began = time.perf_counter()
    await wait_until(partial(_answers, there, "192.0.2.0", 80, ENDPOINTS), within=_WITHIN, every=0.0005)
    took = time.perf_counter() - began
    await there.gone(ref)
    await wait_until(partial(_answers, there, "192.0.2.0", 80, [""]), within=_WITHIN)
    return took


async def _left(there: Whole, number: int) -> float:
    """Seconds until the last connection is sent to an endpoint that is replaced, while some clients ask all the time."""
    name = f"left-{number}"
    await there.endpoints(name, _OTHERS[0], _OTHERS[1])
    ref = await there.service(name, 80)
    await wait_until(partial(_answers, there, "192.0.2.0", 80, _OTHERS[:1]), within=_WITHIN)
    last, asking = 0.0, True

    async def ask() -> None:
        nonlocal last
        while asking:
            began = time.perf_counter()
            if (await there.network.ask("192.0.2.0")).by == _OTHERS[0]:
                last = max(last, began)

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(ask()) for _ in range(4)]
        await there.endpoints(name, _OTHERS[1])
        gone = time.perf_counter()
        await wait_until(lambda: time.perf_counter() - max(last, gone) > 1.0, within=_WITHIN)
        asking = False
        await asyncio.wait(clients)
    await there.gone(ref)
    await wait_until(partial(_answers, there, "192.0.2.0", 80, [""]), within=_WITHIN)
    return max(0.0, last - gone)


async def _many(there: Whole, count: int) -> None:
    """Makes so many Services, each with ten endpoints; some share an address."""
    await there.pools(_POOL)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def make(number: int) -> ObjectRef:
        async with gate:
            key = {"allow-shared-ip": f"k{number // _PORTS}"}
            made = endpoint_slice(f"s{number}", *MANY, port_name=f"p{1000 + number % _PORTS}")
            await there.kube.create(SLICES, made, namespace="default")
            return await there.service(f"s{number}", 1000 + number % _PORTS, annotations=key)

    refs = await asyncio.gather(*map(make, range(count)))
    for ref in refs:
        await wait_until(partial(_shows, there, ref), within=_WITHIN)
    await wait_until(lambda: there.haproxy.applier.settled, within=_WITHIN)


async def _shows(there: Whole, ref: ObjectRef) -> bool:
    return bool(await there.addresses(ref))


async def _anew(there: Whole, directory: Path, count: int) -> list[Row]:
    """A HAProxy and a balancer that begin with nothing; then HAProxy's worker is killed."""
    there.haproxy.running.cancel()
    (directory / "anew").mkdir()
    address = (await there.addresses(ObjectRef(SERVICES, "default", f"s{count - 1}")))[0]
    port = 1000 + (count - 1) % _PORTS
    last = partial(answers, there.network, address, port)
    began = time.perf_counter()
    async with (
        running(there.network, directory / "anew", port=14490, peer_port=14491) as haproxy,
        balancer(there, "anew", path=haproxy.applier),
    ):
        await wait_until(lambda: len(haproxy.applier.slots) == count and haproxy.applier.settled, within=_WITHIN)
        await wait_until(last, within=_WITHIN)
        cold = time.perf_counter() - began
        await wait_until(lambda: not haproxy.applier._waiting, within=_WITHIN)
        commands = haproxy.runtime.commands
        before, worker = await haproxy.whole(), haproxy.worker
        began = time.perf_counter()
        os.kill(worker, signal.SIGKILL)

        async def is_whole() -> bool:
            if not haproxy.applier.settled or haproxy.worker == worker or haproxy.applier._waiting:
                return False
            return await haproxy.whole() == before

        await wait_until(is_whole, within=_WITHIN)
        await wait_until(last, within=_WITHIN)
        back = time.perf_counter() - began
        resident = largest(os.getpid(), "haproxy", "anew")
    name = f"{count} Services of {len(MANY)} endpoints"
    return [
        Row(name=f"{name}, had anew", value=cold, unit="s", goal="<= 15"),
        Row(name=f"{name}, commands", value=commands, unit=""),
        Row(name=f"{name}, HAProxy", value=resident, unit="MiB"),
        Row(name=f"{name}, worker killed, whole again", value=back, unit="s", goal="<= 2"),
    ]
