"""How long a scrape of all metrics takes, with 1 000 Ingresses that have had requests.

The renderer's own probes are asked by HTTP, as Prometheus asks them, and they ask a real nginx. Each Ingress has had answers of two
classes and tries that failed, so that it has nearly all of the series that it can have.
"""

import asyncio
import time
from typing import Final

import aiohttp

from common.runtime.health import Health
from common.testing.objects import endpoint_slice, ingress, rule, service
from nginx_config_renderer.scrape import Scrape
from tests.bench.effort import Effort
from tests.bench.rows import Row, percentile
from tests.edge.world import EdgeWorld, backend, edge, open_directory

GOAL: Final = "<= 200"
AT_ONCE: Final = 20


async def bench(effort: Effort) -> list[Row]:
    """The slowest and the usual of some scrapes."""
    with open_directory() as directory:
        async with backend("all") as port, edge(directory, workers=1) as world:
            names = [f"site-{number:05}" for number in range(effort.many_sites)]
            await world.put(*(one for name in names for one in (*_site(name), service(name))), *_slices(names, port))
            await _visit(world, names)
            seconds, lines = await _scrapes(world, effort.changes)
    name = f"{len(names)} Ingresses, a scrape of {lines} series"
    return [
        Row(name=f"{name}, p50", value=percentile(seconds, 0.5) * 1000, unit="ms", goal=GOAL),
        Row(name=f"{name}, p99", value=percentile(seconds, 0.99) * 1000, unit="ms"),
    ]


def _site(name: str) -> list[dict[str, object]]:
    return [ingress(name, rule(f"{name}.example", "/", f"{name}:80"), rule(f"{name}.example", "/none", "nobody:80"))]


def _slices(names: list[str], port: int) -> list[dict[str, object]]:
    """At one of two addresses nobody listens, so that some tries fail and others are made."""
    return [endpoint_slice(name, "127.0.0.1", "127.0.0.2", port=port) for name in names]


async def _visit(world: EdgeWorld, names: list[str]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with gate:
            for _ in range(2):
                await world.ask(f"{name}.example")
            await world.ask(f"{name}.example", "/none")

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))


async def _scrapes(world: EdgeWorld, count: int) -> tuple[list[float], int]:
    """Seconds of each scrape, and how many series the last one had."""
    health = Health()
    health.also_expose(Scrape(world.admin, world.wanted, lambda: True).text)
    seconds: list[float] = []
    async with health.served("127.0.0.1:0") as address, aiohttp.ClientSession() as client:
        for _ in range(count):
            began = time.monotonic()
            async with client.get(f"http://{address}/metrics") as response:
                text = await response.text()
            seconds.append(time.monotonic() - began)
    return seconds, sum(1 for line in text.splitlines() if line and not line.startswith("#"))
