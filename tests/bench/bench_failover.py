"""How long clients of a floating address are not answered when its node fails, or hands it over.

Three nodes with the service on each, in network namespaces, with the default interval of advertisements; a client connects by TCP every few
milliseconds. The peer is keepalived as its manual begins: two nodes, multicast, an advertisement a second.
"""

import asyncio
import contextlib
import io
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from common.testing import wait_until
from tests.bench.effort import CannotRun, Effort
from tests.bench.rows import Row
from tests.vip.net import SOON, Machine, Probe, Watch, drain, network, served
from tests.vip.world import Keepalived, Scene, running, scene

VIP: Final = "10.9.0.100"
CRASH: Final = "<= 700"  # ms
MOVE: Final = "<= 150"
PLAIN: Final = """
vrrp_instance plain {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    virtual_ipaddress {{
        {vip}/32
    }}
}}
"""


async def bench(effort: Effort) -> list[Row]:
    """The slowest of some failures of each kind."""
    if os.geteuid() != 0 or shutil.which("keepalived", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        raise CannotRun("keepalived in network namespaces needs root and keepalived: apt-get install keepalived")
    # What the nodes say is for whoever looks after a test that failed.
    with tempfile.TemporaryDirectory(prefix="seaway-bench-failover-") as directory, contextlib.redirect_stdout(io.StringIO()):
        plain = [await _plain(Path(directory) / f"plain-{number}") for number in range(min(2, effort.joins))]
        async with scene(Path(directory) / "ours", VIP, "10.9.0.101", "fd09::100", EDGES='["tcp:127.0.0.1:9000"]') as world:
            crash = await _slowest(world, effort.joins, _crash)
            rows = [
                Row(
                    name="node crashes, slowest",
                    value=crash,
                    unit="ms",
                    goal=CRASH,
                    peer="keepalived's defaults",
                    peer_value=max(plain),
                )
            ]
            for name, failure, goal in (
                ("cable pulled", _pull, CRASH),
                ("keepalived ends in order", _end, MOVE),
                ("edge of the node dies", _edge, CRASH),
                ("node cordoned", _cordon, MOVE),
            ):
                rows.append(Row(name=f"{name}, slowest", value=await _slowest(world, effort.joins, failure), unit="ms", goal=goal))
            return rows


async def _slowest(world: Scene, times: int, failure: Callable[[Scene, Machine], Awaitable[None]]) -> float:
    longest = 0.0
    for _ in range(times):
        await world.fresh()
        lost, began = world.holder, time.monotonic()
        await failure(world, lost)
        await world.moved_from(lost)
        longest = max(longest, await world.outage(began, failure.__name__.strip("_")))
    await world.fresh()
    return longest * 1000


async def _crash(world: Scene, lost: Machine) -> None:
    world.crew.net.pull(lost)
    world.crew.kill(lost, signal.SIGKILL, "keepalived", "vrrp")


async def _pull(world: Scene, lost: Machine) -> None:
    world.crew.net.pull(lost)


async def _end(world: Scene, lost: Machine) -> None:
    world.crew.kill(lost, signal.SIGTERM)


async def _edge(world: Scene, lost: Machine) -> None:
    world.edges[lost.name].close()


async def _cordon(world: Scene, lost: Machine) -> None:
    world.crew.node(lost, cordoned=True)


async def _plain(directory: Path) -> float:
    """Milliseconds without an answer when a node of two crashes whose keepalived is configured as plainly as may be."""
    with network(3) as net:
        first, second, client = net.machines
        programs = [Keepalived(machine, directory / machine.name) for machine in (first, second)]
        for program, priority in zip(programs, (150, 100), strict=True):
            program.configuration.write_text(PLAIN.format(priority=priority, vip=VIP))
        with Watch([first, second]) as watch:
            async with running(*programs), _probed(client, [first, second]) as probe:
                await wait_until(lambda: watch.holders(VIP) == {first.name} and _answers(probe, 0) > 20, within=SOON)
                began = time.monotonic()
                net.pull(first)
                for pid in (programs[0].pid, programs[0].vrrp_pid):
                    os.kill(pid, signal.SIGKILL)
                await wait_until(
                    lambda: second.name in watch.holders(VIP) and _answers(probe, time.monotonic() - 0.2) > 5, within=SOON
                )
                return probe.outage(began) * 1000


def _answers(probe: Probe, since: float) -> int:
    return sum(well for at, well in probe.times if at >= since)


@asynccontextmanager
async def _probed(client: Machine, nodes: list[Machine]) -> AsyncIterator[Probe]:
    listeners = [served(machine) for machine in nodes]
    probe = Probe(client.space, VIP)

    async def accept() -> None:
        while True:
            for listener in listeners:
                drain(listener)
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(probe.run()), group.create_task(accept())]
        try:
            yield probe
        finally:
            for task in tasks:
                task.cancel()
            for listener in listeners:
                listener.close()
