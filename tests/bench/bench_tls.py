"""TLS handshakes per second, and the processor time of each, against bare nginx with the certificate in its configuration.

One worker each, one connection a request, no session resumed, ECDSA on P-256. Our edge has the certificates of all sites and chooses one
for each connection; the bare one has a single certificate for all.
"""

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from common.testing.authority import Authority
from common.testing.ports import free_port
from tests.bench.bench_requests import Load, Run, cost, output_of, read_load
from tests.bench.edges import Edge, bare_nginx, seaway
from tests.bench.effort import Effort, program
from tests.bench.rows import Row
from tests.bench.world import World, host, world

CONNECTIONS: Final = 64
GOAL: Final = ">= 0.9"
COST: Final = "<= 1.11"  # the same, where the worker is what limits


async def bench(effort: Effort) -> list[Row]:
    """Handshakes of one site among others."""
    wrk = program("wrk", "apt-get install wrk")
    authority = Authority()
    async with world(effort.sites) as place, AsyncExitStack() as stack:
        for site in place.sites:
            await place.secure(site, authority.issue(host(site)))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seaway-bench-tls-")))
        ours = await stack.enter_async_context(seaway(place))
        bare = await stack.enter_async_context(_bare(place, authority, directory))
        loads = [Load(ours), Load(bare)]
        for load in loads:
            await _answers(load.edge, host(place.sites[0]), authority.write(directory / "ca.crt"))
        for _ in range(effort.runs):
            for load in loads:
                await load.add(_run(wrk, load.edge, host(place.sites[0]), effort.seconds, directory))
    return [
        Row(
            name="TLS handshakes",
            value=statistics.median(loads[0].rates),
            unit="1/s",
            peer=bare.name,
            peer_value=statistics.median(loads[1].rates),
            goal=GOAL,
            of_ratio=True,
        ),
        cost("a TLS handshake", loads[0], loads[1], COST),
    ]


@asynccontextmanager
async def _bare(place: World, authority: Authority, directory: Path) -> AsyncIterator[Edge]:
    issued = authority.issue(*map(host, place.sites))
    certificate, key = directory / "bare.crt", directory / "bare.key"
    certificate.write_bytes(issued.certificate)
    key.write_bytes(issued.key)
    port = free_port()
    more = (
        f"ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_session_tickets off; "
        "ssl_session_cache shared:tls:10m; ssl_protocols TLSv1.2 TLSv1.3;"
    )
    async with bare_nginx(place, tls=(port, more)) as edge:
        yield replace(edge, tls_port=port)


async def _answers(edge: Edge, name: str, authority: Path) -> None:
    """Waits until the site is served with a certificate of its own."""
    ask = ["curl", "-s", "-o", "/dev/null", "--cacert", str(authority), "--resolve", f"{name}:{edge.tls_port}:127.0.0.1"]
    async with asyncio.timeout(60):
        while True:
            process = await asyncio.create_subprocess_exec(*ask, "-f", f"https://{name}:{edge.tls_port}/")
            if await process.wait() == 0:
                return
            await asyncio.sleep(0.1)


async def _run(wrk: str, edge: Edge, name: str, seconds: int, directory: Path) -> Run:
    """One run. The load generator gets a file of hosts of its own, since it takes the server's name for TLS from the URL alone."""
    hosts = directory / "hosts"
    hosts.write_text(f"127.0.0.1 {name}\n")
    load = f"{wrk} -t1 -c{CONNECTIONS} -d{seconds} --latency -H 'Connection: close' https://{name}:{edge.tls_port}/"
    own = ["unshare", "--mount", "sh", "-c", f"mount --bind {hosts} /etc/hosts && exec {load}"]
    return read_load(edge, await output_of(edge, own, seconds + 30))
