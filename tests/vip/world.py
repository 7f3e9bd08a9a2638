"""keepalived alone, a crew of nodes with the service on each, and a scene of a crew at work with a client."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from common.process import Child, atomic_write
from common.testing import wait_until
from common.testing.debian import THIS_MACHINE, Installation
from common.testing.nats import nats_binary
from common.testing.objects import config_map
from tests.vip.net import SOON, Machine, Network, Probe, Watch, drain, network, served

EDGE_PORT = 9000
LONG = 5.0  # seconds that no failover takes on a machine that gives its programs time
_OWED = 10  # a failover waits for so many programs, one after another, at most
_NAP = 0.05  # seconds


class Keepalived:
    """The real program on one machine, in a directory of its own."""

    def __init__(self, machine: Machine, directory: Path, installation: Installation = THIS_MACHINE) -> None:
        self.machine = machine
        self.installation = installation
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
        self.child = Child(
            f"keepalived-{machine.number}", machine.space.command(*installation.command(*words)), hear=self.lines.append
        )

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())

    @property
    def vrrp_pid(self) -> int:
        return int((self.directory / "vrrp").read_text())

    def check(self) -> int:
        """What `keepalived -t` says."""
        return subprocess.run(
            self.machine.space.command(*self.installation.command("keepalived", "-t", "-f", str(self.configuration))),
            capture_output=True,
            check=False,
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
        self.killed: set[int] = set()
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
        """Keepalived's process, or its child's (`vrrp`). Files of theirs may have been removed by those before them."""
        parent = _child(self.services[machine.name].pid or 0)
        return parent if which == "keepalived" else _child(parent)

    def kill(self, machine: Machine, number: signal.Signals, *which: str) -> None:
        """Sends a signal to its keepalived, or to the processes named."""
        for pid in [self.pid(machine, one) for one in which or ("keepalived",)]:
            self.killed.add(pid)
            os.kill(pid, number)

    def runs(self, machine: Machine) -> bool:
        """Whether both processes of its keepalived are there, and not on their way out, and have been for as long as a failover takes."""
        try:
            pids = {self.pid(machine, which) for which in ("keepalived", "vrrp")}
            ages = [time.time() - Path(f"/proc/{pid}").stat().st_mtime for pid in pids]
            return not pids & self.killed and min(ages) > 1
        except (OSError, ValueError, StopIteration):
            return False

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


def _child(parent: int) -> int:
    """The keepalived that this process has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(one) for one in children if Path(f"/proc/{one}/comm").read_text().strip() == "keepalived")


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

    def __init__(self, crew: Crew, watch: Watch, probe: Probe, addresses: Sequence[str]) -> None:
        self.crew = crew
        self.watch = watch
        self.probe = probe
        self.addresses = tuple(addresses)
        self.edges = {machine.name: edge(machine) for machine in crew.nodes}
        self.late: list[tuple[float, float]] = []  # (moment, by how many seconds this machine let a short sleep oversleep)

    @property
    def holder(self) -> Machine:
        """The one node that holds the probed address."""
        (name,) = self.watch.holders(self.probe.address)
        return self.machine(name)

    def machine(self, name: str) -> Machine:
        return next(machine for machine in self.crew.nodes if machine.name == name)

    def settled(self, *addresses: str) -> bool:
        """Whether each address has one holder; without any, all that this scene began with."""
        return all(len(self.watch.holders(address)) == 1 for address in addresses or self.addresses)

    async def fresh(self) -> None:
        """Mends what was broken, and waits until everything is as in the beginning."""
        for machine in self.crew.nodes:
            self.crew.net.plug(machine)
            self.crew.net.unmute(machine)
            self.crew.node(machine)
            if self.edges[machine.name].fileno() < 0:
                self.edges[machine.name] = edge(machine)
        self.crew.vips(*self.addresses)
        nodes = self.crew.nodes
        await wait_until(lambda: all(self.crew.runs(one) and self.crew.health(one) == "0" for one in nodes), within=2 * SOON)
        await wait_until(lambda: self.settled() and not self.crew.firing, within=2 * SOON)
        await wait_until(lambda: self.watch.floating() <= set(self.addresses), within=SOON)
        await self.answered(time.monotonic())

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

    async def came_through(self, since: float, what: str, *, besides: Machine | None = None, addresses: Iterable[str] = ()) -> None:
        """Holds what happened since then to the invariant: one holder of each address, and none, or two, for no longer than a failover.

        `besides` is a machine that nobody can reach, whatever it has.
        """
        outage = await self.outage(since, what)
        name = besides.name if besides is not None else ""
        meant = tuple(addresses) or self.addresses
        none = max((_longest(self.watch.gaps(address, since, name)) for address in meant), default=0.0)
        twice = max((_longest(self.watch.overlaps(address, since, name)) for address in meant), default=0.0)
        print(f"{what}: nobody had an address for {none * 1000:.0f} ms, two had one for {twice * 1000:.0f} ms, at the longest")
        late = max((much for at, much in self.late if at >= since), default=0.0)
        assert max(outage, none, twice) < LONG + _OWED * late, f"the machine was late by {late:.1f} s"

    async def look_on(self, listeners: Sequence[socket.socket]) -> None:
        """Lets everybody in who connects, and notes how late this machine is, until cancelled."""
        while True:
            for listener in (*listeners, *self.edges.values()):
                drain(listener)
            asleep = time.monotonic()
            await asyncio.sleep(_NAP)
            now = time.monotonic()
            self.late.append((now, now - asleep - _NAP))


def _longest(spans: Iterable[tuple[float, float]]) -> float:
    return max((after - before for before, after in spans), default=0.0)


@asynccontextmanager
async def scene(directory: Path, *addresses: str, nodes: int = 3, **knobs: str) -> AsyncIterator[Scene]:
    """A crew at work that holds `addresses`; the first of them is probed."""
    async with crew(directory, nodes=nodes, **knobs) as made, asyncio.TaskGroup() as group:
        listeners = [served(machine) for machine in made.nodes]
        with Watch(made.nodes) as watch:
            probe = Probe(made.client.space, addresses[0])
            made.vips(*addresses)
            found = Scene(made, watch, probe, addresses)
            tasks = [group.create_task(probe.run()), group.create_task(found.look_on(listeners))]
            try:
                await wait_until(lambda: found.settled(*addresses), within=2 * SOON)
                await found.answered(time.monotonic())
                yield found
            finally:
                for task in tasks:
                    task.cancel()
                for listener in (*listeners, *found.edges.values()):
                    listener.close()
