"""Backends for tests that have an API server but no nodes: HTTP servers on addresses of their own.

    async with backend_namespace() as backends:
        await backends.serve(backends.addresses[0], 8080, "web-1")

An EndpointSlice may not name a loopback address, so the servers live in a network namespace behind a veth pair, where any number of
addresses can be had. Each namespace has a /24 of 10.250.0.0/16 to itself. Who uses it is said by an abstract unix socket, which the kernel
takes back when its owner dies; so what a killed test left is found and removed by the next one.
"""

import asyncio
import json
import os
import random
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from common.testing.kubernetes.binary import echo_program
from common.testing.kubernetes.child import Child
from common.testing.waiting import wait_until

MOST_ADDRESSES = 250

_DEADLINE = 10.0
_NAMES = "seaway-backends-"
_LINKS = "swb"


class BackendNamespace:
    """A network namespace with addresses that this machine reaches, and the servers in it."""

    def __init__(self, number: int, addresses: int, program: Path, logs: Path) -> None:
        self.name = f"{_NAMES}{number}"
        self.link = f"{_LINKS}{number}"  # on this machine's side
        self.gateway = f"10.250.{number}.1"  # this machine, as the servers see it
        self.addresses = tuple(f"10.250.{number}.{host}" for host in range(2, 2 + addresses))
        self._program = program
        self._logs = logs
        self._servers: list[Child] = []

    async def serve(self, address: str, port: int, name: str, *, drain: float = 0) -> Child:
        """Starts a server that answers as `name` and waits until it listens. After SIGTERM it goes on for `drain` seconds."""
        arguments = ["-listen", f"{address}:{port}", "-name", name, "-drain", f"{drain}s"]
        command = ["ip", "netns", "exec", self.name, str(self._program), *arguments]
        server = Child(name, command, self._logs / f"{len(self._servers)}.log")
        self._servers.append(server)
        await server.start()

        async def listens() -> bool:
            server.check()
            return await _listens(address, port)

        await wait_until(listens, within=_DEADLINE)
        return server

    async def stop(self) -> None:
        """Kills the servers."""
        for server in self._servers:
            server.signal(signal.SIGKILL)
        for server in self._servers:
            await server.ended()


@asynccontextmanager
async def backend_namespace(addresses: int = 8) -> AsyncIterator[BackendNamespace]:
    """A namespace with that many addresses, and no servers yet. Raises PermissionError without root."""
    if os.geteuid() != 0:
        raise PermissionError("backends on addresses of their own need a network namespace, which needs root")
    if not 1 <= addresses <= MOST_ADDRESSES:
        raise ValueError(f"a namespace has 1 to {MOST_ADDRESSES} addresses, not {addresses}")
    program = await asyncio.to_thread(echo_program)
    taken = await _taken()
    with tempfile.TemporaryDirectory(prefix="seaway-backends-") as logs, _free_subnet(taken) as number:
        backends = BackendNamespace(number, addresses, program, Path(logs))
        try:
            await _remove(backends)
            await _create(backends)
            yield backends
        finally:
            await backends.stop()
            await _remove(backends)


async def _create(backends: BackendNamespace) -> None:
    outside, inside = backends.link, f"{backends.link}n"
    await _ip("netns", "add", backends.name)
    await _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", backends.name)
    await _ip("address", "add", f"{backends.gateway}/24", "dev", outside)
    await _ip("link", "set", outside, "up")
    lines = [f"address add {address}/24 dev {inside}" for address in backends.addresses]
    batch = ["link set lo up", f"link set {inside} up", *lines, f"route add default via {backends.gateway}"]
    await _ip("-netns", backends.name, "-batch", "-", stdin="\n".join(batch))


async def _remove(backends: BackendNamespace) -> None:
    """Removes what is there. The pair goes first, since a namespace takes its time to let go of it."""
    if any(link["ifname"] == backends.link for link in json.loads(await _ip("-json", "link", "show", "type", "veth") or "[]")):
        await _ip("link", "delete", backends.link)
    if any(found["name"] == backends.name for found in json.loads(await _ip("-json", "netns", "list") or "[]")):
        await _ip("netns", "delete", backends.name)


async def _taken() -> frozenset[int]:
    """The /24s of 10.250.0.0/16 that somebody else's routes lead to."""
    routes = json.loads(await _ip("-json", "-4", "route", "show", "table", "all") or "[]")
    ours = {route["dst"].split("/")[0] for route in routes if not str(route.get("dev", "")).startswith(_LINKS)}
    return frozenset(int(target.split(".")[2]) for target in ours if target.startswith("10.250."))


@contextmanager
def _free_subnet(taken: frozenset[int]) -> Iterator[int]:
    """The number of a /24 that nobody has, held until the end."""
    for number in random.sample(range(256), 256):
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as claim:
            try:
                claim.bind(f"\0{_NAMES}{number}")
            except OSError:
                continue
            if number not in taken:
                yield number
                return
    raise RuntimeError("all of 10.250.0.0/16 is in use on this machine; tests need a /24 of it")


async def _listens(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def _ip(*arguments: str, stdin: str = "") -> str:
    process = await asyncio.create_subprocess_exec(
        "ip", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_DEADLINE):
        output, errors = await process.communicate(stdin.encode())
    if process.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {errors.decode().strip()}")
    return output.decode()
