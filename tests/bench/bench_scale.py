"""A large cluster: growth, start, changes, new routes, many at once, a storm of changes under load, and memory.

The cluster grows while Seaway serves it, with a bad Ingress among the good ones; the last of them must not wait for the others. The
changes and routes are timed as in the bench of the edge, with every other site there. An Ingress without a Service is told of by an Event,
as whoever watches Events sees it. The storm moves sites as fast as the API server takes it, while a load generator asks all of them; an
answer other than 200 is an error of the bench, and so is a reload. Memory is that of the largest worker, beside a configuration with each
host written out and beside Traefik, and of the renderer.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.bench_edge import endpoint_change, new_route
from tests.bench.bench_requests import load_script, run_load
from tests.bench.edges import Edge, bare_nginx, seaway, serves_all, traefik
from tests.bench.effort import Effort, program
from tests.bench.memory import largest, processes
from tests.bench.rows import Row, latency_rows
from tests.bench.visitor import Reaction, Visitor
from tests.bench.world import World, host, served, world

WRITERS: Final = 4  # objects that are made at a time
LOOK: Final = 0.02  # seconds between two looks at whether all are served


@dataclass(slots=True)
class Measured:
    """What Seaway did. Times in seconds, memory in MiB."""

    last: float = 0.0
    start: float = 0.0
    changes: list[Reaction] = field(default_factory=list)
    routes: list[Reaction] = field(default_factory=list)
    at_once: float = 0.0
    told: list[float] = field(default_factory=list)
    moves: float = 0.0  # a second
    worker: float = 0.0
    renderer: float = 0.0


async def bench(effort: Effort) -> list[Row]:
    """Seaway first, then what the others hold."""
    wrk = program("wrk", "apt-get install wrk")
    async with world(1) as place:
        ours = await _measure(wrk, place, effort)
        theirs = [await _memory(place, starting) for starting in (bare_nginx(place), traefik(place))]
    return rows(effort, ours, theirs)


async def _measure(wrk: str, place: World, effort: Effort) -> Measured:
    made = Measured()
    async with seaway(place) as edge, Visitor(edge.port) as visitor:
        made.last = await _grow(place, edge, visitor, effort.hosts)
        sites = place.sites[:: max(1, len(place.sites) // effort.changes)][: effort.changes]
        made.changes = [await endpoint_change(place, visitor, site) for site in sites]
        made.routes = [await new_route(place, visitor, f"new-{n:05}") for n in range(effort.routes)]
        made.at_once = await _at_once(place, visitor, effort.at_once)
        made.told = await _told(place, effort.lost)
        made.moves = await _storm(wrk, place, edge, effort.seconds)
        made.worker = largest(edge.pid, "nginx: worker")
        made.renderer = largest(edge.pid, "nginx_config_renderer")
    began = _now()
    async with seaway(place):
        made.start = _now() - began
    return made


async def _grow(place: World, edge: Edge, visitor: Visitor, count: int) -> float:
    """Seconds from the creation of the last Ingress to its being served."""
    await place.add_bad_ingress("bad")
    await place.grow(count)
    began = _now()
    for site in place.sites[-WRITERS:]:
        await visitor.until(host(site), served)
    took = _now() - began
    await serves_all(edge, place)
    return took


async def _at_once(place: World, visitor: Visitor, count: int) -> float:
    """Seconds from the last of many new Ingresses to the last one served."""
    sites = [f"once-{number:05}" for number in range(count)]
    await _each(sites, place.add_backend)
    await _each(sites, place.add_ingress)
    began = _now()
    for site in sites:
        await visitor.until(host(site), served)
    took = _now() - began
    await _each(sites, place.remove)
    return took


async def _told(place: World, count: int) -> list[float]:
    """Seconds from the creation of an Ingress without a Service to the Event that says so, one after another."""
    took = []
    async with place.complaints() as told:
        for number in range(count):
            name = f"lost-{number:05}"
            await place.add_lost_ingress(name)
            began = _now()
            took.append(await told.about(name) - began)
    return took


async def _each(sites: list[str], do: Callable[[str], Awaitable[None]]) -> None:
    gate = asyncio.Semaphore(WRITERS)

    async def one(site: str) -> None:
        async with gate:
            await do(site)

    async with asyncio.TaskGroup() as group:
        for site in sites:
            group.create_task(one(site))


async def _storm(wrk: str, place: World, edge: Edge, seconds: int) -> float:
    """Moves a second, under load. Raises RuntimeError if any answer was not 200, or nginx was reloaded."""
    workers = processes(edge.pid, "nginx: worker")
    with tempfile.TemporaryDirectory(prefix="seaway-bench-wrk-") as directory:
        script = load_script(place.sites, Path(directory))
        load = asyncio.create_task(run_load(wrk, edge, script, seconds))
        began, moves = _now(), 0
        while not load.done():
            _, move = place.elsewhere(place.sites[moves % len(place.sites)])
            await move()
            moves += 1
        took = _now() - began
        await load
    if processes(edge.pid, "nginx: worker") != workers:
        raise RuntimeError("nginx was reloaded by changes of endpoints")
    return moves / took


async def _memory(place: World, starting: AbstractAsyncContextManager[Edge]) -> tuple[str, float]:
    """What the largest process of an edge holds when it serves every site."""
    async with starting as edge:
        return edge.name, largest(edge.pid)


def rows(effort: Effort, ours: Measured, theirs: list[tuple[str, float]]) -> list[Row]:
    """All figures."""
    many = f"{effort.hosts} Ingresses"
    changes, routes = [r.since_answered for r in ours.changes], [r.since_answered for r in ours.routes]
    made = [
        Row(name=f"{many}, the last one after it was created", value=ours.last, unit="s", goal="<= 1"),
        Row(name=f"{many}, start until all are served", value=ours.start, unit="s", goal="<= 60"),
        *latency_rows(f"{many}, endpoint change", changes, p99=50),
        *latency_rows(f"{many}, new Ingress", routes, p50=10, p99=50),
        Row(name=f"{many}, {effort.at_once} more at once", value=ours.at_once, unit="s", goal="<= 10"),
        *latency_rows(f"{many}, Event of a bad one", ours.told, p99=1000),
        Row(name=f"{many}, endpoint changes under load", value=ours.moves, unit="1/s", goal=">= 100"),
        Row(name=f"{many}, memory of the renderer", value=ours.renderer, unit="MiB", goal="<= 200"),
    ]
    goal = "<= 80"
    for name, mib in theirs:
        made.append(Row(name=f"{many}, memory of a worker", value=ours.worker, unit="MiB", peer=name, peer_value=mib, goal=goal))
        goal = ""
    return made


def _now() -> float:
    return asyncio.get_running_loop().time()
