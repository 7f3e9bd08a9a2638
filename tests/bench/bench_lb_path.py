"""A connection through the balancer, against a HAProxy with a configuration written by hand, and against none.

Three endpoints (nginx) in a network of their own, one Service, HAProxy with one thread. The other HAProxy is what an operator would have on
the same node: the same program, thread, checks, retries, times and TCP keep-alive, with the floating address and the endpoints written into
its configuration. It is in the same network namespace, so the kernel tracks its connections too, as it does on every node that has
kube-proxy; only the redirection is ours alone.

Many short runs, one way after the other and back again, and the median counts. While they last, all programs share one processor: where the
scheduler puts three programs on two processors changes the figures by half, and is nobody's merit. So a rate is what a connection costs the
clients, the endpoints, HAProxy and the kernel together. The processor time of HAProxy alone is told beside it. Bulk is one file of a
megabyte over connections that are kept.

A change of endpoints is timed from its being wanted to the first new connection that the new endpoint answers, with as many Services as
there are sites in other benches. The other HAProxy is given a new configuration and reloaded, as without a runtime API.
"""

import asyncio
import os
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from common.process import Child, validate
from common.testing import wait_until
from haproxy_lb import master
from haproxy_lb.model import DEFAULT_TREATMENT, Backend, Endpoint, Frontend
from haproxy_lb.runtime import Lost
from tests.bench.effort import Effort, program
from tests.bench.endpoints import MEGABYTE, PORT, answers, kept, served
from tests.bench.memory import family, processor
from tests.bench.rows import Row, latency_rows
from tests.lb.world import SOON, VIP, Balancer, Network, network, running, service

WRITTEN: Final = "192.0.2.11"  # the address that the other HAProxy has
ENDPOINTS: Final = ("10.82.0.10", "10.82.0.11", "10.82.0.12")
GOAL: Final = ">= 0.95"
_CONNECTIONS: Final = 40
_STREAMS: Final = 8
_RUN: Final = 60.0  # seconds for one run of the load generator, at most
_UNITS: Final = {"B": 1.0, "KB": 2.0**10, "MB": 2.0**20, "GB": 2.0**30}

_HAPROXY: Final = """
global
    nbthread 1
    hard-stop-after 30s
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 1h
    retries 3
    option redispatch 1
    option clitcpka
    clitcpka-idle 60s
    clitcpka-intvl 15s
    clitcpka-cnt 4
    option srvtcpka
    srvtcpka-idle 60s
    srvtcpka-intvl 15s
    srvtcpka-cnt 4
"""
_LISTEN: Final = """
listen s{number}
    bind {address}:{port}
    balance roundrobin
"""


@dataclass(slots=True)
class Way:
    """A way to the endpoints, and what it carried in each run: connections a second, and bytes a second."""

    name: str
    address: str
    port: int = 80
    haproxy: Child | None = None
    connections: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    effort: list[float] = field(default_factory=list)  # seconds of HAProxy's for a connection


async def bench(effort: Effort) -> list[Row]:
    """Connections and bytes, then changes."""
    wrk, nginx = program("wrk", "apt-get install wrk"), program("nginx", "apt-get install nginx")
    with tempfile.TemporaryDirectory(prefix="seaway-bench-lb-") as made:
        directory = Path(made)
        async with network() as net, _haproxies(net, directory) as (ours, written):
            async with served(net, nginx, directory / "nginx", ENDPOINTS):
                await ours.have(service([Endpoint(address, PORT) for address in ENDPOINTS], fronts=[(VIP, 80)]))
                ways = [
                    Way("Seaway", VIP, haproxy=ours.haproxy),
                    Way("haproxy.cfg by hand", WRITTEN, haproxy=written.child),
                    Way("direct", ENDPOINTS[0], PORT),
                ]
                with _one_processor():
                    rows = await _carried(net, wrk, ways, effort)
            return [*rows, *await _changed(net, ours, written, effort)]


@contextmanager
def _one_processor() -> Iterator[None]:
    """We, and all that we have started, have one processor in common; what is started meanwhile too."""
    before = os.sched_getaffinity(0)
    _keep_to({max(before)})
    try:
        yield
    finally:
        _keep_to(before)


def _keep_to(processors: set[int]) -> None:
    for one in family(os.getpid()):
        with suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(one.pid, processors)


@dataclass(slots=True)
class Written:
    """The other HAProxy."""

    directory: Path
    child: Child

    def write(self, *services: Sequence[str]) -> None:
        """Its configuration: for each Service its endpoints. Ports count from 80."""
        text = _HAPROXY
        for number, addresses in enumerate(services):
            text += _LISTEN.format(number=number, address=WRITTEN, port=80 + number)
            text += "".join(f"    server {address} {address}:{PORT} check inter 2s rise 2 fall 3\n" for address in addresses)
        (self.directory / "haproxy.cfg").write_text(text)

    async def reloads(self) -> bool:
        """Whether it was told to begin again."""
        with suppress(Lost):
            await master.reload(self.directory / "master.sock")
            return True
        return False


@asynccontextmanager
async def _haproxies(net: Network, directory: Path) -> AsyncIterator[tuple[Balancer, Written]]:
    net.router.ip(f"address add {WRITTEN}/32 dev lo")
    await validate([*net.router.enter, "sysctl", "-qw", "net.ipv4.ip_forward=1"], timeout=SOON)
    for name in ("ours", "written", "nginx"):
        (directory / name).mkdir()
    haproxy = program("haproxy", "apt-get install haproxy")
    there = directory / "written"
    command = [*net.router.enter, haproxy, "-W", "-S", f"{there}/master.sock", "-f", f"{there}/haproxy.cfg"]
    written = Written(there, Child("haproxy by hand", command))
    written.write(ENDPOINTS)
    async with running(net, directory / "ours", threads=1) as ours, kept(written.child):
        await wait_until((there / "master.sock").exists, within=SOON)
        yield ours, written


async def _carried(net: Network, wrk: str, ways: Sequence[Way], effort: Effort) -> list[Row]:
    for way in ways:
        await wait_until(partial(answers, net, way.address, way.port), within=SOON)
    often = ["-t1", "-d1" if effort.seconds == 1 else "-d2"]
    for turn in range(effort.runs * 3 if effort.runs > 1 else 1):
        for way in ways if turn % 2 else reversed(ways):
            url = f"http://{way.address}:{way.port}"
            short = [f"-c{_CONNECTIONS}", "-H", "Connection: close", f"{url}/small"]
            before = _busy(way)
            way.connections.append(await _load(net, way, [wrk, *often, *short], r"Requests/sec:\s+([\d.]+)()"))
            way.effort.append((_busy(way) - before) / (way.connections[-1] * int(often[1].removeprefix("-d"))))
            bulk = [f"-c{_STREAMS}", f"{url}/large"]
            way.bytes.append(await _load(net, way, [wrk, *often, *bulk], r"Transfer/sec:\s+([\d.]+)(KB|MB|GB|B)"))
    return _rows(ways)


def _busy(way: Way) -> float:
    """Seconds of processor time that the way's HAProxy has used."""
    pid = way.haproxy.pid if way.haproxy is not None else None
    return processor(pid) if pid is not None else 0.0


def _rows(ways: Sequence[Way]) -> list[Row]:
    rows = []
    for peer in ways[1:]:
        goal = GOAL if peer is ways[1] else ""
        for name, unit, mine, theirs in (
            ("balanced connections", "1/s", ways[0].connections, peer.connections),
            ("balanced bulk", "MiB/s", ways[0].bytes, peer.bytes),
        ):
            by = MEGABYTE if unit == "MiB/s" else 1
            values = [statistics.median(figures) / by for figures in (mine, theirs)]
            rows.append(
                Row(name=name, value=values[0], unit=unit, peer=peer.name, peer_value=values[1], goal=goal, of_ratio=bool(goal))
            )
    effort = [1e6 * statistics.median(way.effort) for way in ways[:2]]
    name = "balanced connection, HAProxy's processor time"
    return [*rows, Row(name=name, value=effort[0], unit="us", peer=ways[1].name, peer_value=effort[1])]


async def _load(net: Network, way: Way, command: Sequence[str], figure: str) -> float:
    """One run of the load generator. Raises RuntimeError if a connection failed."""
    process = await asyncio.create_subprocess_exec(*net.clients.enter, *command, stdout=-1, stderr=-1)
    async with asyncio.timeout(_RUN):
        said, errors = (part.decode() for part in await process.communicate())
    found = re.search(figure, said)
    if process.returncode or found is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"wrk against {way.name}: {said}{errors}")
    return float(found[1]) * _UNITS.get(found[2], 1.0)


async def _changed(net: Network, ours: Balancer, written: Written, effort: Effort) -> list[Row]:
    """One change after another, of one Service among many, by each of the two."""
    await net.serve(*ENDPOINTS, port=PORT)

    def addresses(number: int, to: str) -> list[tuple[str, ...]]:
        return [(to,) if at == number % effort.sites else (ENDPOINTS[0],) for at in range(effort.sites)]

    def services(given: Sequence[tuple[str, ...]]) -> list[tuple[Backend, list[Frontend]]]:
        return [
            service([Endpoint(one, PORT) for one in each], DEFAULT_TREATMENT, name=f"s{at}", fronts=[(VIP, 80 + at)])
            for at, each in enumerate(given)
        ]

    async def want(given: Sequence[tuple[str, ...]]) -> None:
        ours.want(*services(given))

    async def reload(given: Sequence[tuple[str, ...]]) -> None:
        written.write(*given)
        await wait_until(written.reloads, within=3 * SOON, every=0.005)  # its master does not listen while it begins again

    took: dict[str, list[float]] = {}
    for address, change in ((VIP, want), (WRITTEN, reload)):
        took[address] = []
        for number in range(effort.changes):
            to = ENDPOINTS[1 + number % 2]
            seen = partial(_answered_by, net, address, 80 + number % effort.sites, to)
            began = time.perf_counter()
            await asyncio.gather(change(addresses(number, to)), wait_until(seen, within=3 * SOON, every=0.0005))
            took[address].append(time.perf_counter() - began)
    name = f"change among {effort.sites} balanced Services"
    return latency_rows(name, took[VIP], peer="a reload each", peer_seconds=took[WRITTEN])


async def _answered_by(net: Network, address: str, port: int, to: str) -> bool:
    return (await net.ask(address, port)).by == to
