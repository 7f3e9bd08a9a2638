"""Nodes, a client and a switch, as network namespaces; who holds an address, as the kernel says it; whether an address answers, by TCP.

Nothing of the machine's own network is touched. Namespaces are named by the process that makes them, and are gone when the block ends.
Sockets belong to the namespace in which they were made (network_namespaces(7)), so a thread enters one, makes a socket, and the test's own
loop goes on with it.
"""

import asyncio
import contextlib
import ctypes
import itertools
import os
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Self, TypeVar

from keepalived_vip.model import Address
from keepalived_vip.rtnetlink import ADDRESS_GROUPS, Answered, Told, ask, read

T = TypeVar("T")
SOON = 20.0
PORT = 8080
_NUMBERS = itertools.count()
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
    muted: set[str] = field(default_factory=set)

    def pull(self, machine: Machine) -> None:
        """Pulls the cable."""
        self.switch.ip("link", "set", machine.port, "down")

    def plug(self, machine: Machine) -> None:
        """Plugs it in again."""
        self.switch.ip("link", "set", machine.port, "up")

    def mute(self, machine: Machine) -> None:
        """VRRP neither comes nor goes; everything else does."""
        self.muted.add(machine.name)
        for chain in ("INPUT", "OUTPUT"):
            machine.space.run("iptables", "-I", chain, "-p", "vrrp", "-j", "DROP")

    def unmute(self, machine: Machine) -> None:
        """VRRP flows again."""
        if machine.name not in self.muted:
            return
        self.muted.discard(machine.name)
        for chain in ("INPUT", "OUTPUT"):
            machine.space.run("iptables", "-D", chain, "-p", "vrrp", "-j", "DROP")


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """`count` machines, numbered from 1, at a switch."""
    prefix = f"sw{os.getpid()}-{next(_NUMBERS)}"
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
    """Listens to the kernel of each machine: every coming and going of an address, with its time. Interfaces that a machine gets later
    are no affair of its.
    """

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.moments: list[Moment] = []
        self.held: dict[Address, set[str]] = {}
        self._sockets = {machine.name: machine.space.enter(_listener) for machine in machines}
        self._interfaces = {machine.name: {index for index, _ in machine.space.enter(socket.if_nameindex)} for machine in machines}
        self._fixed = {str(address) for machine in machines for address in machine.addresses()}
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

    def held_by(self, machine: Machine) -> set[str]:
        """What a machine has now."""
        return {str(address) for address, holders in self.held.items() if machine.name in holders}

    def floating(self) -> set[str]:
        """All addresses that somebody has and could give to another one."""
        there = {address for address, holders in self.held.items() if holders}
        return {str(address) for address in there if not address.is_loopback and not address.is_link_local} - self._fixed

    def gaps(self, address: str, since: float, besides: str = "") -> list[tuple[float, float]]:
        """From when to when nobody had it, after `since`; the machine `besides` counts for nothing."""
        return self._spans(ip_address(address), since, besides, lambda count: count == 0)

    def overlaps(self, address: str, since: float, besides: str = "") -> list[tuple[float, float]]:
        """From when to when several had it, after `since`; the machine `besides` counts for nothing."""
        return self._spans(ip_address(address), since, besides, lambda count: count > 1)

    def _spans(self, address: Address, since: float, besides: str, when: Callable[[int], bool]) -> list[tuple[float, float]]:
        holders: set[str] = set()
        spans: list[tuple[float, float]] = []
        began: float | None = None
        for moment in [moment for moment in self.moments if moment.address == address and moment.machine != besides]:
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
                    self._take(key.data, self._sockets[key.data].recv(1 << 18))

    def _take(self, machine: str, data: bytes) -> None:
        now = time.monotonic()
        for told in read(data):
            if isinstance(told, Told):
                if told.place.interface not in self._interfaces[machine]:
                    continue
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


@dataclass
class Probe:
    """Connects to an address again and again, and notes when that went well."""

    space: Namespace
    address: str
    every: float = 0.005
    times: list[tuple[float, bool]] = field(default_factory=list)

    def outage(self, since: float) -> float:
        """The longest time from a try that failed to the next good answer, after `since`, in seconds. That nobody tried is no outage."""
        longest, failed = 0.0, None
        for at, well in [(at, well) for at, well in self.times if at >= since]:
            if not well:
                failed = at if failed is None else failed
            elif failed is not None:
                longest, failed = max(longest, at - failed), None
        return float("inf") if failed is not None else longest

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET

        async def once() -> None:
            began = time.monotonic()
            connection = self.space.enter(lambda: socket.socket(family, socket.SOCK_STREAM))
            connection.setblocking(False)  # noqa: FBT003
            try:
                async with asyncio.timeout(0.02):
                    await loop.sock_connect(connection, (self.address, PORT))
                self.times.append((time.monotonic(), True))
            except (OSError, TimeoutError):
                # On a busy machine we may be late to hear of an answer that has been there for long.
                well = _is_connected(connection)
                self.times.append((time.monotonic() if well else began, well))
            finally:
                connection.close()

        while True:
            await once()
            await asyncio.sleep(self.every)


def _is_connected(connection: socket.socket) -> bool:
    try:
        connection.getpeername()
    except OSError:
        return False
    return True


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


def frames() -> socket.socket:
    """All that comes and goes on eth0."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    made.bind(("eth0", 0x0003))
    made.setblocking(False)  # noqa: FBT003
    return made


def heard_more(said: socket.socket, heard: list[int]) -> bool:
    """Counts advertisements of both machines; whether there was one."""
    before = sum(heard)
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, (_, protocol, *_) = said.recvfrom(2048)
            if protocol == 0x0800 and packet[9] == 112:
                heard[packet[15] - 1] += 1
    return sum(heard) > before
