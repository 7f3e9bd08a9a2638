"""A real HAProxy with the balancer's data path around it, in a network of its own: clients, a router that holds the floating addresses, and
endpoints behind it.

    clients 10.81.0.0/24, fd81::/64  ──  router: HAProxy, nftables  ──  endpoints 10.82.0.0/16, fd82::/64

`balancer()` has no bus: a wish is given to it as the service would.
"""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.process import Child
from common.testing import wait_until
from common.testing.debian import THIS_MACHINE, Installation
from haproxy_lb.apply import Applier
from haproxy_lb.configure import Configuration
from haproxy_lb.files import Files
from haproxy_lb.frame import Frame
from haproxy_lb.kernel import Kernel
from haproxy_lb.leaving import Leaving
from haproxy_lb.model import DEFAULT_TREATMENT, Backend, BackendKey, Endpoint, Frontend, FrontKey, Peer, Treatment, Wanted
from haproxy_lb.runtime import Lost, Runtime
from haproxy_lb.slots import Kind, Slot
from tests.lb.netns import Namespace, namespaces

VIP, VIP6 = "192.0.2.10", "2001:db8::10"
CLIENT, CLIENT6 = "10.81.0.2", "fd81::2"
SOON = 10.0


@dataclass(frozen=True)
class Answer:
    """What came back. `by` is the address of the endpoint that answered, nothing if none did; `heard` what came before the question."""

    by: str = ""
    peer: str = ""
    heard: str = ""


class Network:
    """The three namespaces."""

    def __init__(self, clients: Namespace, router: Namespace, backs: Namespace) -> None:
        self.clients, self.router, self.backs = clients, router, backs
        self.served: dict[str, int] = {}
        self._stack = AsyncExitStack()
        self._open: list[asyncio.StreamWriter] = []

    def build(self) -> None:
        """Connects them, with addresses for 250 endpoints."""
        router = self.router
        for link, other, net, six in (("c0", self.clients, "10.81.0", "fd81"), ("b0", self.backs, "10.82.0", "fd82")):
            router.ip(f"link add {link} type veth peer name e0 netns {other.name}")
            router.ip(f"address add {net}.1/24 dev {link}", f"address add {six}::1/64 dev {link} nodad", f"link set {link} up")
            other.ip(f"address add {net}.2/24 dev e0", f"address add {six}::2/64 dev e0 nodad", "link set e0 up")
            other.ip(f"route add default via {net}.1", f"route add default via {six}::1")
        self.clients.ip(*(f"address add 10.81.0.{n}/24 dev e0" for n in range(3, 20)), "address add fd81::3/64 dev e0 nodad")
        self.backs.ip(*(f"address add 10.82.0.{n}/24 dev e0" for n in range(3, 254)), "address add fd82::3/64 dev e0 nodad")
        router.ip(f"address add {VIP}/32 dev lo", f"address add {VIP6}/128 dev lo nodad")

    async def serve(self, *addresses: str, port: int = 8080) -> list[Endpoint]:
        """Endpoints that answer with their address and what they heard. `stay` keeps a connection open."""
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listening = await self.backs.socket(family)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, port))
            server = await asyncio.start_server(self._answer, sock=listening, backlog=1024)
            self._stack.push_async_callback(_closed, server)
        return [Endpoint(address, port) for address in addresses]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = []
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while (line := (await reader.readline()).decode("latin-1")) and not line.startswith("GET"):
                heard.append(line.strip())
                if line.endswith(("ask\n", "stay\n")):
                    break
            if not line:
                return
            address = writer.get_extra_info("sockname")[0]
            if line.startswith("GET"):
                writer.write(b"HTTP/1.0 200 OK\r\n\r\n" if line.startswith("GET /well?a=b ") else b"HTTP/1.0 503 Unwell\r\n\r\n")
                return
            self.served[address] = self.served.get(address, 0) + 1
            writer.write(
                json.dumps(
                    {
                        "by": address,
                        "peer": writer.get_extra_info("peername")[0],
                        "heard": " ".join(heard).removesuffix("ask").removesuffix("stay").strip(),
                    }
                ).encode()
                + b"\n"
            )
            if line.endswith("stay\n"):
                while word := await reader.readline():
                    writer.write(word)

    async def connect(
        self, address: str = VIP, port: int = 80, *, source: str = "", before: str = "", word: str = "ask", within: float = 8
    ) -> tuple[Answer, asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection and what was answered. Raises OSError if there is none."""
        six = ":" in address
        made = await self.clients.socket(socket.AF_INET6 if six else socket.AF_INET)
        try:
            made.bind((source or (CLIENT6 if six else CLIENT), 0))
            async with asyncio.timeout(within):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
        except BaseException:
            made.close()
            raise
        reader, writer = await asyncio.open_connection(sock=made)
        if word != "ask":
            self._open.append(writer)
        try:
            writer.write(f"{before}{word}\n".encode())
            async with asyncio.timeout(within):
                line = await reader.readline()
            if not line:
                raise ConnectionResetError("closed without an answer")
        except BaseException:
            writer.close()
            raise
        return Answer(**json.loads(line)), reader, writer

    async def ask(self, address: str = VIP, port: int = 80, *, within: float = 8, **how: str) -> Answer:
        """One question on a connection of its own; an empty answer if there is none."""
        try:
            answer, _, writer = await self.connect(address, port, within=within, **how)
        except (OSError, TimeoutError):
            return Answer()
        writer.close()
        return answer

    async def close(self) -> None:
        """Ends the connections and the endpoints."""
        for writer in self._open:
            writer.close()
        await self._stack.aclose()


async def _closed(server: asyncio.Server) -> None:
    server.close()


class Balancer:
    """HAProxy and its applier."""

    def __init__(self, network: Network, directory: Path, frame: Frame, installation: Installation) -> None:
        self.network, self.directory, self.frame = network, directory, frame
        self.runtime = Runtime(directory / "admin.sock", frame.tables)
        self.kernel = Kernel(frame.port, frame.inside, [*network.router.enter, *installation.command()])
        program = installation.command(installation.program("haproxy") if not installation.root else "haproxy")
        self.files = Files(directory, frame, program)
        self.haproxy = Child("haproxy", self._command(program), prepare=lambda: None)
        self.leaving = Leaving(linger=0.2, deadline=3600)
        self.applier = self.new_applier()
        self.wanted = Wanted()
        self.peers: tuple[Peer, ...] = ()
        self.running: asyncio.Task[None]

    def new_applier(self) -> Applier:
        """One that knows nothing yet, as after a restart of the service."""
        configuration = Configuration(self.files, self.runtime, self.directory / "master.sock")
        return Applier(self.runtime, self.kernel, configuration, self.leaving)

    def _command(self, program: Sequence[str]) -> list[str]:
        socket_of_master = f"{self.frame.run}/master.sock,mode,600"
        return [*self.network.router.enter, *program, "-W", "-S", socket_of_master, "-f", f"{self.frame.tables}/haproxy.cfg"]

    def want(self, *services: tuple[Backend, Iterable[Frontend]]) -> None:
        """All Services that there should be."""
        backends = {backend.key: backend for backend, _ in services}
        fronts = {front.key: front for _, given in services for front in given}
        self.wanted = Wanted(fronts, backends, peers=self.peers)
        self.applier.want(self.wanted)

    async def have(self, *services: tuple[Backend, Iterable[Frontend]]) -> None:
        """HAProxy has these Services and no others."""
        self.want(*services)
        await self.settle()

    def held(self, slot: str) -> list[str]:
        """The servers that a slot is known to have."""
        assert self.applier._live is not None
        return sorted(self.applier._live.held.slots[Slot(slot)])

    async def whole(self) -> tuple[Any, Any, Any]:
        """All that HAProxy and the kernel hold now, read by somebody else."""
        other = Runtime(self.directory / "admin.sock", self.frame.tables)
        try:
            held = await other.held()
        except Lost:
            return None, None, None
        finally:
            other.close()
        servers = {slot: {name: (one.number, one.admin) for name, one in given.items()} for slot, given in held.slots.items()}
        return held.tables, servers, await self.kernel.held()

    @asynccontextmanager
    async def another_applier(self) -> AsyncIterator[Applier]:
        """The service was restarted: an applier that knows nothing."""
        self.running.cancel()
        self.runtime.close()
        other = self.new_applier()
        task = asyncio.create_task(other.run())
        try:
            yield other
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def settle(self) -> None:
        await wait_until(lambda: self.applier.settled, within=SOON * 2, every=0.002)

    @property
    def worker(self) -> int:
        """The process that serves."""
        assert self.applier._live is not None
        return self.applier._live.process.pid


def service(
    endpoints: Iterable[Endpoint],
    treatment: Treatment = DEFAULT_TREATMENT,
    *,
    name: str = "web",
    fronts: Iterable[tuple[str, int]] = ((VIP, 80), (VIP6, 80)),
    sources: tuple[str, ...] = (),
) -> tuple[Backend, list[Frontend]]:
    """A Service of these endpoints at these addresses and ports."""
    key = BackendKey("shop", name, 80)
    return Backend(key, tuple(endpoints), treatment), [Frontend(FrontKey(*front), key, sources) for front in fronts]


@asynccontextmanager
async def network() -> AsyncIterator[Network]:
    """The namespaces, without HAProxy."""
    with namespaces("c", "r", "b") as (clients, router, backs):
        made = Network(clients, router, backs)
        made.build()
        try:
            yield made
        finally:
            await made.close()


@asynccontextmanager
async def balancer(directory: Path, installation: Installation = THIS_MACHINE, **changes: Any) -> AsyncIterator[Balancer]:
    """A network with a HAProxy that has nothing yet."""
    async with network() as made, running(made, directory, installation, **changes) as world:
        yield world


@asynccontextmanager
async def running(
    made: Network, directory: Path, installation: Installation = THIS_MACHINE, **changes: Any
) -> AsyncIterator[Balancer]:
    """HAProxy in that network."""
    given: dict[str, Any] = {"slots": {Kind(): 16, Kind("leastconn"): 4, Kind("source"): 4, Kind(affinity=10800): 4}, "threads": 2}
    frame = Frame(run=str(directory), tables=str(directory), **(given | changes))
    world = Balancer(made, directory, frame, installation)
    async with asyncio.TaskGroup() as group:
        world.running = group.create_task(world.applier.run())
        tasks = [world.running]
        await wait_until((directory / "haproxy.cfg").is_file, within=SOON)
        tasks.append(group.create_task(world.haproxy.run()))
        world.applier.release()
        try:
            await world.settle()
            yield world
        finally:
            await world.haproxy.stop(5, signal.SIGTERM)
            for task in tasks:
                task.cancel()
            world.runtime.close()
