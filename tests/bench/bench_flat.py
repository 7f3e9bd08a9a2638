"""Memory stays as it is over many changes of endpoints and certificates.

All parts of the renderer run in this process, with a real nginx that is asked in between, so that its workers decode what changed. A tenth
of the changes warms everything up; what is there then is the peer of what is there in the end.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from common.runtime.collector import spare
from common.testing.authority import Authority, Issued
from common.testing.objects import endpoint_slice, ingress, rule, service, tls_secret
from nginx_config_renderer import keypairs
from tests.bench.effort import Effort
from tests.bench.memory import MIB, largest
from tests.bench.rows import Row
from tests.edge.world import EdgeWorld, ask, edge, open_directory

BACKENDS: Final = 50
CERTIFICATES: Final = 10
GOAL: Final = "<= 1.1"
_ANYBODY: Final = ssl._create_unverified_context()  # noqa: S323 which one it is, other tests look at


async def bench(effort: Effort) -> list[Row]:
    """Endpoints, then certificates."""
    spare()
    rows: list[Row] = []
    async with _world() as world:
        rounds = max(10, effort.endpoint_changes // BACKENDS)
        rows += await _flat(world, f"{rounds * BACKENDS} endpoint changes", rounds, lambda number: _move(world, number))
    authority = Authority()
    issued = [[authority.issue(f"s{at}.example") for at in range(CERTIFICATES)] for _ in range(2)]
    async with _world() as world:
        rounds = max(10, effort.certificate_changes // CERTIFICATES)
        name = f"{rounds * CERTIFICATES} certificate changes"
        rows += await _flat(world, name, rounds, lambda number: _renew(world, issued[number % 2]))
    return rows


@asynccontextmanager
async def _world() -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, workers=1) as world:
            tls = [{"hosts": [f"s{at}.example"], "secretName": f"s{at}"} for at in range(CERTIFICATES)]
            for at in range(BACKENDS):
                site = ingress(f"s{at}", rule(f"s{at}.example", "/", f"s{at}:80"))
                site["spec"] |= {"tls": [tls[at]]} if at < CERTIFICATES else {}
                world.feed(service(f"s{at}"), endpoint_slice(f"s{at}", "127.0.0.1", port=1), site)
            await world.settle()
            yield world


async def _move(world: EdgeWorld, number: int) -> None:
    """Gives every backend another address, and asks some of them. Nobody listens there, which is remembered too for a while."""
    address = f"127.{1 + number % 200}.{number // 200 % 200}.1"
    for at in range(BACKENDS):
        world.feed(endpoint_slice(f"s{at}", address, address[:-1] + "2", port=1))
    await world.settle()
    for at in range(CERTIFICATES, CERTIFICATES + 5):
        await ask(world.port, f"s{at}.example")


async def _renew(world: EdgeWorld, issued: list[Issued]) -> None:
    for at, one in enumerate(issued):
        world.feed(tls_secret(f"s{at}", one))
        pair = keypairs.read("default", f"s{at}", one.data)
        world.applier.want(world.wanted.learn(pair).entries)
    await world.settle()
    for at in range(3):
        await ask(world.settings.https_port, f"s{at}.example", tls=_ANYBODY)


async def _flat(world: EdgeWorld, name: str, rounds: int, change: Callable[[int], Awaitable[None]]) -> list[Row]:
    early = (0.0, 0.0)
    for number in range(rounds):
        await change(number)
        if number == rounds // 10:
            early = _memory(world)
    worker, renderer = _memory(world)
    return [
        Row(name=f"{name}, a worker", value=worker, unit="MiB", peer="early on", peer_value=early[0], goal=GOAL, of_ratio=True),
        Row(
            name=f"{name}, the renderer", value=renderer, unit="MiB", peer="early on", peer_value=early[1], goal=GOAL, of_ratio=True
        ),
    ]


def _memory(world: EdgeWorld) -> tuple[float, float]:
    """Of nginx's worker, and of this process, in MiB."""
    own = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / MIB
    return largest(world.nginx.pid or 0, "nginx: worker"), own
