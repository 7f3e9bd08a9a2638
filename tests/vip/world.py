"""Nodes, a client and a switch, as network namespaces; who holds an address, as the kernel says it; whether an address answers, by TCP.

Nothing of the machine's own network is touched. Namespaces are named by the process that makes them, and are gone when the block ends.
Sockets belong to the namespace in which they were made (network_namespaces(7)), so a thread enters one, makes a socket, and the test's own
loop goes on with it.
"""

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self, TypeVar

from common.process import Child, atomic_write
from common.testing import wait_until
from common.testing.nats import nats_binary
from common.testing.objects import config_map
from keepalived_vip.model import Address
from keepalived_vip.rtnetlink import ADDRESS_GROUPS, Answered, Told, ask, read

T = TypeVar("T")
SOON = 20.0
PORT = 8080
EDGE_PORT = 9000
_LIBC = ctypes.CDLL(None, use_errno=True)


def run(*command: str) -> str:
    """A program to its end; its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Namespace:
    """A network namespace. `ip` runs ip(8) in it, `enter` a function, `command` is how a program is started there."""

    name: str

    def ip(self, *words: str) -> str:
        return run("ip", "-n", self.name, *words)

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str) -> str:
        return run(*self.command(*words))

    def enter(self, work: Callable[[], T]) -> T:
        """What `work` returns in a thread of this namespace."""
        results: list[T] = []
        errors: list[BaseException] = []

        def body() -> None:
            handle = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
            try:
                if _LIBC.setns(handle, 0x40000000) != 0:  # CLONE_NEWNET
                    raise OSError(ctypes.get_errno(), "setns")
                results.append(work())
            except BaseException as error:  # noqa: BLE001 it is raised where it is waited for
                errors.append(error)
            finally:
                os.close(handle)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


@dataclass
class Machine:
    """A namespace with an interface `eth0` at the switch."""

    number: int
    space: Namespace
    port: str  # its end of the cable at the switch

    @property
    def v4(self) -> str:
        return f"10.9.0.{self.number}"

    @property
    def v6(self) -> str:
        return f"fd09::{self.number:x}"

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    def addresses(self) -> set[Address]:
        """What its eth0 has."""
        lines = self.space.ip("-o", "addr", "show", "dev", "eth0").splitlines()
        return {ip_address(line.split()[3].partition("/")[0]) for line in lines}


@dataclass
class Network:
    """A switch and what hangs on it."""

    switch: Namespace
    machines: list[Machine] = field(default_factory=list)

    def pull(self, machine: Machine) -> None:
        """Pulls the cable."""
        self.switch.ip("link", "set", machine.port, "down")

    def plug(self, machine: Machine) -> None:
        """Plugs it in again."""
        self.switch.ip("link", "set", machine.port, "up")

    @staticmethod
    def mute(machine: Machine) -> None:
        """VRRP neither comes nor goes; everything else does."""
        for chain in ("INPUT", "OUTPUT"):
            machine.space.run("iptables", "-I", chain, "-p", "vrrp", "-j", "DROP")

    @staticmethod
    def unmute(machine: Machine) -> None:
        """VRRP flows again."""
        for chain in ("INPUT", "OUTPUT"):
            machine.space.run("iptables", "-D", chain, "-p", "vrrp", "-j", "DROP")


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """`count` machines, numbered from 1, at a switch."""
    prefix = f"sw{os.getpid()}"
    made: list[str] = []
    try:
        for name in ("s", *map(str, range(1, count + 1))):
            run("ip", "netns", "add", f"{prefix}-{name}")
            made.append(f"{prefix}-{name}")
            run("ip", "-n", made[-1], "link", "set", "lo", "up")
        switch = Namespace(f"{prefix}-s")
        switch.ip("link", "add", "br0", "type", "bridge")
        switch.ip("link", "set", "br0", "up")
        built = Network(switch)
        for number in range(1, count + 1):
            built.machines.append(_attach(switch, Namespace(f"{prefix}-{number}"), number))
        yield built
    finally:
        for name in made:
            run("ip", "netns", "del", name)


def _attach(switch: Namespace, space: Namespace, number: int) -> Machine:
    port = f"p{number}"
    switch.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space.name)
    switch.ip("link", "set", port, "master", "br0", "up")
    machine = Machine(number, space, port)
    space.ip("link", "set", "eth0", "up")
    space.ip("addr", "add", f"{machine.v4}/24", "dev", "eth0")
    space.ip("addr", "add", f"{machine.v6}/64", "dev", "eth0", "nodad")
    return machine


@dataclass(frozen=True)
class Moment:
    """When an address came to a machine or went from it."""

    at: float
    machine: str
    address: Address
    here: bool


class Watch:
    """Listens to the kernel of each machine: every coming and going of an address, with its time."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.moments: list[Moment] = []
        self.held: dict[Address, set[str]] = {}
        self._sockets = {machine.name: machine.space.enter(_listener) for machine in machines}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._over = threading.Event()

    def __enter__(self) -> Self:
        for listener in self._sockets.values():
            listener.send(ask(1))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for listener in self._sockets.values():
            listener.close()

    def holders(self, address: str) -> set[str]:
        """Who has it now."""
        return set(self.held.get(ip_address(address), set()))

    def gaps(self, address: str, since: float) -> list[tuple[float, float]]:
        """From when to when nobody had it, after `since`."""
        return self._spans(ip_address(address), since, lambda count: count == 0)

    def overlaps(self, address: str, since: float) -> list[tuple[float, float]]:
        """From when to when several had it, after `since`."""
        return self._spans(ip_address(address), since, lambda count: count > 1)

    def _spans(self, address: Address, since: float, when: Callable[[int], bool]) -> list[tuple[float, float]]:
        holders: set[str] = set()
        spans: list[tuple[float, float]] = []
        began: float | None = None
        for moment in [moment for moment in self.moments if moment.address == address]:
            (holders.add if moment.here else holders.discard)(moment.machine)
            if moment.at < since:
                continue
            if when(len(holders)) and began is None:
                began = moment.at
            elif not when(len(holders)) and began is not None:
                spans.append((began, moment.at))
                began = None
        if began is not None:
            spans.append((began, time.monotonic()))
        return spans

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for name, listener in self._sockets.items():
                selector.register(listener, selectors.EVENT_READ, name)
            while not self._over.is_set():
                for key, _ in selector.select(0.05):
                    self._take(key.data, key.fileobj.recv(1 << 18))  # type: ignore[union-attr]

    def _take(self, machine: str, data: bytes) -> None:
        now = time.monotonic()
        for told in read(data):
            if isinstance(told, Told):
                address = told.place.address
                holders = self.held.setdefault(address, set())
                if (machine in holders) != told.here:
                    (holders.add if told.here else holders.discard)(machine)
                    self.moments.append(Moment(now, machine, address, told.here))
            else:
                assert isinstance(told, Answered)


def _listener() -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    listener.bind((0, ADDRESS_GROUPS))
    return listener


class Keepalived:
    """The real program on one machine, in a directory of its own."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.configuration = directory / "keepalived.conf"
        self.track_file = directory / "health"
        self.track_file.write_text("0\n")
        self.lines: list[str] = []
        words = [
            "keepalived",
            "-n",
            "-l",
            "-P",
            "-f",
            str(self.configuration),
            "-p",
            str(directory / "pid"),
            "-r",
            str(directory / "vrrp"),
        ]
        self.child = Child(f"keepalived-{machine.number}", machine.space.command(*words), hear=self.lines.append)

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())

    @property
    def vrrp_pid(self) -> int:
        return int((self.directory / "vrrp").read_text())

    def check(self) -> int:
        """What `keepalived -t` says."""
        return subprocess.run(
            self.machine.space.command("keepalived", "-t", "-f", str(self.configuration)), capture_output=True, check=False
        ).returncode

    async def reload(self, text: str) -> None:
        """Takes another configuration; it is in force afterwards, or keepalived has ended."""
        self.configuration.write_text(text)
        before = self._count("Reload complete")
        self.child.reload()
        await wait_until(lambda: self._count("Reload complete") > before or self.child.pid is None, within=SOON)

    def _count(self, words: str) -> int:
        return sum(words in line for line in self.lines)


@asynccontextmanager
async def running(*programs: Keepalived) -> AsyncIterator[None]:
    """They run for as long as the block does."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(program.child.run()) for program in programs]
        try:
            yield
        finally:
            for program in programs:
                await program.child.stop(5)
            for task in tasks:
                task.cancel()


@dataclass
class Probe:
    """Connects to an address again and again, and notes when that went well."""

    space: Namespace
    address: str
    every: float = 0.005
    times: list[tuple[float, bool]] = field(default_factory=list)

    def outage(self, since: float) -> float:
        """The longest time between two good answers after `since`, in seconds."""
        good = [at for at, well in self.times if well and at >= since]
        edges = [since, *good]
        return max((after - before for before, after in itertools.pairwise(edges)), default=float("inf"))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET

        async def once() -> None:
            began = time.monotonic()
            connection = self.space.enter(lambda: socket.socket(family, socket.SOCK_STREAM))
            connection.setblocking(False)  # noqa: FBT003
            try:
                async with asyncio.timeout(0.05):
                    await loop.sock_connect(connection, (self.address, PORT))
                self.times.append((time.monotonic(), True))
            except (OSError, TimeoutError):
                self.times.append((began, False))
            finally:
                connection.close()

        while True:
            await once()
            await asyncio.sleep(self.every)


def served(machine: Machine, port: int = PORT) -> socket.socket:
    """A listener on all addresses of a machine; the kernel accepts for it."""

    def make() -> socket.socket:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.listen(4096)
        return listener

    return machine.space.enter(make)


def drain(listener: socket.socket) -> None:
    """Accepts what waits, so that the queue never fills."""
    if listener.fileno() < 0:
        return
    listener.setblocking(False)  # noqa: FBT003
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()


BUS = "10.9.0.254"


class Crew:
    """A cluster of nodes with the service on each, a bus and a watcher. Objects are manifests in a folder; the watcher follows them.

    The last machine of the network is the client.
    """

    def __init__(self, net: Network, directory: Path, knobs: dict[str, str]) -> None:
        self.net = net
        self.nodes = net.machines[:-1]
        self.client = net.machines[-1]
        self.directory = directory
        self.knobs = knobs
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.firing: set[tuple[str, str]] = set()
        self.manifests = directory / "manifests"
        self.manifests.mkdir(parents=True)
        self.services = {machine.name: self._service(machine) for machine in self.nodes}
        net.switch.ip("addr", "add", f"{BUS}/24", "dev", "br0")
        conf = directory / "nats.conf"
        conf.write_text(f'listen: "{BUS}:4222"\njetstream {{ store_dir: "{directory}/nats" }}\n')
        self.bus = Child("nats", net.switch.command(nats_binary(), "-c", str(conf)))
        self.watcher = Child(
            "watcher",
            net.switch.command(sys.executable, "-m", "watcher"),
            environment=self._environment(MANIFESTS=str(self.manifests), LEASE_NAME="", MARKER_INTERVAL="2", PROBES="127.0.0.1:0"),
        )
        for machine in self.nodes:
            self.node(machine)

    def run_of(self, machine: Machine) -> Path:
        return self.directory / machine.name

    def pid(self, machine: Machine, which: str = "keepalived") -> int:
        """Keepalived's process, or its child's (`vrrp`)."""
        return int((self.run_of(machine) / f"{which}.pid").read_text())

    def node(self, machine: Machine, *, labels: dict[str, str] | None = None, cordoned: bool = False, ready: bool = True) -> None:
        """Writes a Node."""
        addresses = [{"type": "InternalIP", "address": address} for address in (machine.v4, machine.v6)]
        conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
        self.write(
            f"node-{machine.number}",
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": machine.name, "labels": labels or {}},
                "spec": {"unschedulable": cordoned},
                "status": {"addresses": addresses, "conditions": conditions},
            },
        )

    def vips(self, *addresses: str) -> None:
        """Writes the ConfigMap with the operator's addresses."""
        self.write("vips", config_map("vips", {"test": " ".join(addresses)}, "seaway-edge"))

    def write(self, name: str, raw: dict[str, Any]) -> None:
        atomic_write(self.manifests / f"{name}.json", json.dumps(raw).encode())

    def health(self, machine: Machine) -> str:
        return (self.run_of(machine) / "health").read_text().strip()

    def configuration(self, machine: Machine) -> str:
        path = self.run_of(machine) / "keepalived.conf"
        return path.read_text() if path.exists() else ""

    def seaway(self, *words: str) -> str:
        """The operator's command."""
        return self.net.switch.run(sys.executable, "-m", "seaway", *words, "--nats", f"nats://{BUS}:4222")

    def _service(self, machine: Machine) -> Child:
        run = self.run_of(machine)
        knobs = {"NODE": machine.name, "INSTANCE": machine.name, "RUN": str(run), "STATE": str(run / "state"), **self.knobs}
        return Child(
            machine.name,
            machine.space.command(sys.executable, "-m", "keepalived_vip"),
            environment=self._environment(**knobs),
            hear=lambda line: self._hear(machine, line),
        )

    def _hear(self, machine: Machine, line: str) -> None:
        print(f"{machine.name}: {line}")
        if not line.startswith("{"):
            return
        event = json.loads(line)
        self.events.setdefault(machine.name, []).append(event)
        if event["event"] == "alert":
            where = (machine.name, event["alert"])
            (self.firing.add if event["status"] == "firing" else self.firing.discard)(where)

    def alerts(self) -> set[str]:
        """The names of the alerts that are firing."""
        return {name for _, name in self.firing}

    @staticmethod
    def _environment(**knobs: str) -> dict[str, str]:
        common = {"BUS__URL": f"nats://{BUS}:4222", "LOG_FORMAT": "json", "PROBES": "127.0.0.1:0"} | knobs
        return {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"} | {f"SEAWAY_{name}": value for name, value in common.items()}


@asynccontextmanager
async def crew(directory: Path, *, nodes: int = 3, **knobs: str) -> AsyncIterator[Crew]:
    """A crew at work, and a client."""
    with network(nodes + 1) as net:
        made = Crew(net, directory, knobs)
        async with asyncio.TaskGroup() as group:
            children = [made.bus, made.watcher, *made.services.values()]
            tasks = [group.create_task(child.run()) for child in children]
            try:
                yield made
            finally:
                await asyncio.gather(*(service.stop(10) for service in made.services.values()))
                await made.watcher.stop(5)
                await made.bus.stop(5)
                for task in tasks:
                    task.cancel()


def edge(machine: Machine) -> socket.socket:
    """Something that listens where a node's edge should."""
    return served(machine, EDGE_PORT)


class Scene:
    """A crew that holds its addresses, a watch on every kernel, and a client that connects to one of the addresses all the time."""

    def __init__(self, crew: Crew, watch: Watch, probe: Probe) -> None:
        self.crew = crew
        self.watch = watch
        self.probe = probe
        self.edges = {machine.name: edge(machine) for machine in crew.nodes}

    @property
    def holder(self) -> Machine:
        """The one node that holds the probed address."""
        (name,) = self.watch.holders(self.probe.address)
        return self.machine(name)

    def machine(self, name: str) -> Machine:
        return next(machine for machine in self.crew.nodes if machine.name == name)

    def settled(self, *addresses: str) -> bool:
        """Whether each address has one holder."""
        return all(len(self.watch.holders(address)) == 1 for address in addresses)

    async def moved_from(self, machine: Machine) -> Machine:
        """Waits until another node alone holds the probed address."""
        await wait_until(lambda: len(self.watch.holders(self.probe.address) - {machine.name}) == 1, within=SOON)
        (name,) = self.watch.holders(self.probe.address) - {machine.name}
        return self.machine(name)

    async def answered(self, since: float) -> None:
        """Waits until the probe has had some answers since that moment."""
        await wait_until(lambda: sum(well for at, well in self.probe.times if at >= since) > 20, within=SOON)

    async def outage(self, since: float, what: str) -> float:
        """For how long the client was not answered, at the longest; printed."""
        await wait_until(lambda: any(well for at, well in self.probe.times if at >= time.monotonic() - 0.1), within=SOON)
        await self.answered(time.monotonic())
        longest = self.probe.outage(since)
        print(f"{what}: {longest * 1000:.0f} ms without an answer")
        return longest


@asynccontextmanager
async def scene(directory: Path, *addresses: str, nodes: int = 3, **knobs: str) -> AsyncIterator[Scene]:
    """A crew at work that holds `addresses`; the first of them is probed."""
    async with crew(directory, nodes=nodes, **knobs) as made, asyncio.TaskGroup() as group:
        listeners = [served(machine) for machine in made.nodes]
        with Watch(made.nodes) as watch:
            probe = Probe(made.client.space, addresses[0])
            made.vips(*addresses)
            found = Scene(made, watch, probe)
            tasks = [group.create_task(probe.run()), group.create_task(_accept(listeners, found.edges))]
            try:
                await wait_until(lambda: found.settled(*addresses), within=2 * SOON)
                await found.answered(time.monotonic())
                yield found
            finally:
                for task in tasks:
                    task.cancel()
                for listener in (*listeners, *found.edges.values()):
                    listener.close()


async def _accept(listeners: Sequence[socket.socket], edges: Mapping[str, socket.socket]) -> None:
    while True:
        for listener in (*listeners, *edges.values()):
            drain(listener)
        await asyncio.sleep(0.05)
