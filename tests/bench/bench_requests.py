"""Requests per second, their latency and the processor time of each, against bare nginx with a static configuration and against Traefik.

One worker each, 64 connections that are kept, every site in turn. The runs of the edges are interleaved, and the median of each counts,
since a machine is not equally fast from one second to the next. Bare nginx is the limit. None of them logs requests.

The processor time is that of nginx's worker. It decides how many requests there can be, and what else the machine does changes it little.

At half load each connection pauses between an answer and the next request, so that all edges get half of the requests that ours can
answer; their latency is then that of the edge, and not of a queue before it.
"""

import asyncio
import re
import statistics
import tempfile
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.edges import Edge, bare_nginx, seaway, traefik
from tests.bench.effort import Effort, program
from tests.bench.memory import at_work
from tests.bench.rows import Row
from tests.bench.world import World, host, world

CONNECTIONS: Final = 64
HALF_LOAD: Final = "<= 1.2"
GOAL: Final = ">= 0.8"  # of bare nginx; ingress-nginx 1.15 reached 0.61 on the same kind of machine
COST: Final = "<= 1.25"  # the same, where the worker is what limits

# Which site is asked next; every request is made before the run begins, so that the generator costs little.
_SCRIPT: Final = """
local hosts, requests, at = {%s}, {}, 0
function init()
    for number, host in ipairs(hosts) do
        requests[number] = wrk.format("GET", "/", {["Host"] = host})
    end
end
function request()
    at = at %% #requests + 1
    return requests[at]
end
"""
_PAUSE: Final = """
function delay()
    return %d
end
"""
_UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Run:
    """What the load generator saw: requests, how many a second, and the 99th percentile of their latency in milliseconds."""

    requests: int
    rate: float
    latency: float


@dataclass(slots=True)
class Load:
    """What one edge did in each run, and the microseconds of processor time that a request cost it."""

    edge: Edge
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    async def add(self, running: Awaitable[Run]) -> None:
        """One run."""
        before = at_work(self.edge.pid)
        run = await running
        self.rates.append(run.rate)
        self.latencies.append(run.latency)
        self.costs.append((at_work(self.edge.pid) - before) / run.requests * 1e6)


async def bench(effort: Effort) -> list[Row]:
    """Few sites, then many."""
    wrk = program("wrk", "apt-get install wrk")
    made: list[Row] = []
    async with world(effort.sites) as place:
        made += await measure(wrk, place, effort)
        await place.grow(effort.many_sites)
        made += await measure(wrk, place, effort)
    return made


async def measure(wrk: str, place: World, effort: Effort) -> list[Row]:
    """Our figures beside each peer's, for the sites that are there."""
    async with AsyncExitStack() as stack:
        edges = [await stack.enter_async_context(make(place)) for make in (seaway, bare_nginx, traefik)]
        script = load_script(place.sites, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seaway-bench-wrk-"))))
        loads = await _runs(wrk, edges, script, effort)
        pause = round(CONNECTIONS / (statistics.median(loads[0].rates) / 2) * 1000)
        script.write_text(script.read_text() + _PAUSE % pause)
        calm = await _runs(wrk, edges[:2], script, effort)
    name = f"{len(place.sites)} sites"
    return [
        *rows(name, loads[0], loads[1:]),
        cost(f"a request, {name}", loads[0], loads[1], COST),
        half_load(name, calm[0], calm[1]),
    ]


async def _runs(wrk: str, edges: Sequence[Edge], script: Path, effort: Effort) -> list[Load]:
    """What each edge did in some runs, which take turns. What it does first is not counted: LuaJIT is about to compile what it runs."""
    for edge in edges:
        await run_load(wrk, edge, script, effort.seconds)
    loads = [Load(edge) for edge in edges]
    for _ in range(effort.runs):
        for load in loads:
            await load.add(run_load(wrk, load.edge, script, effort.seconds))
    return loads


def cost(of: str, ours: Load, limit: Load, goal: str) -> Row:
    """What one of them costs nginx's worker."""
    return Row(
        name=f"processor time of {of}",
        value=statistics.median(ours.costs),
        unit="us",
        peer=limit.edge.name,
        peer_value=statistics.median(limit.costs),
        goal=goal,
        of_ratio=True,
    )


def half_load(name: str, ours: Load, limit: Load) -> Row:
    """The latency where nobody has to wait for others."""
    return Row(
        name=f"request latency at half load, {name}, p99",
        value=statistics.median(ours.latencies),
        unit="ms",
        peer=limit.edge.name,
        peer_value=statistics.median(limit.latencies),
        goal=HALF_LOAD,
        of_ratio=True,
    )


def rows(name: str, ours: Load, peers: Sequence[Load]) -> list[Row]:
    """Rates and latencies of one number of sites. The first peer is the limit."""
    made: list[Row] = []
    for peer in peers:
        limit = peer is peers[0]
        made.append(
            Row(
                name=f"requests, {name}",
                value=statistics.median(ours.rates),
                unit="1/s",
                peer=peer.edge.name,
                peer_value=statistics.median(peer.rates),
                goal=GOAL if limit else "",
                of_ratio=limit,
            )
        )
        made.append(
            Row(
                name=f"request latency, {name}, p99",
                value=statistics.median(ours.latencies),
                unit="ms",
                peer=peer.edge.name,
                peer_value=statistics.median(peer.latencies),
            )
        )
    return made


def load_script(sites: Sequence[str], directory: Path) -> Path:
    """What makes the load generator ask these sites in turn."""
    script = directory / "sites.lua"
    script.write_text(_SCRIPT % ", ".join(f'"{host(site)}"' for site in sites))
    return script


async def run_load(wrk: str, edge: Edge, script: Path, seconds: int) -> Run:
    """One run of the load generator. Raises RuntimeError if any answer was not 200."""
    load = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency", f"--script={script}"]
    return read_load(edge, await output_of(edge, [wrk, *load, f"http://127.0.0.1:{edge.port}/"], seconds + 30))


async def output_of(edge: Edge, command: Sequence[str], within: float) -> str:
    """What a load generator says. Raises RuntimeError if it fails."""
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    async with asyncio.timeout(within):
        output, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"wrk against {edge.name}: {output.decode()}{errors.decode()}")
    return output.decode()


def read_load(edge: Edge, said: str) -> Run:
    """What the load generator said. Raises RuntimeError if any answer was not 200."""
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    latency = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said)
    if requests is None or rate is None or latency is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk against {edge.name} said: {said}")
    return Run(int(requests[1]), float(rate[1]), float(latency[1]) * _UNITS[latency[2]])
