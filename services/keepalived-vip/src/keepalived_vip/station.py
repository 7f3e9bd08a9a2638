"""The station: everything that one node does with its own hands, as long as it lives and also while the bus is away.

From what is known follow the layout for keepalived and the number in its track file; from what the kernel has follows what is held, what is
stale and what is missing. The station tells of each address that comes or goes.
"""

import asyncio
import contextlib
import socket
from collections import deque
from ipaddress import ip_address
from typing import Final

import structlog

from common.contracts.vips import HeldAddress, VipMoved, VipNode, instance_name
from common.process import atomic_write
from common.runtime.reports import timestamp
from keepalived_vip import metrics
from keepalived_vip.edges import Edges
from keepalived_vip.keeper import Keeper
from keepalived_vip.kernel import Kernel
from keepalived_vip.known import Known
from keepalived_vip.model import Address, Member, order
from keepalived_vip.plan import TooManyError, layout
from keepalived_vip.render import INTERFACE, interface_of
from keepalived_vip.rtnetlink import Place
from keepalived_vip.settings import Settings
from keepalived_vip.sweep import Scene, missing, stale
from keepalived_vip.yielding import KEEP, Verdict, verdict

LOOK: Final = 0.25  # seconds between two looks without news
_REMEMBERED: Final = 2000

log = structlog.get_logger(__name__)


class Station:
    """One node. `held` says since when it has which address."""

    def __init__(self, settings: Settings, known: Known, keeper: Keeper, kernel: Kernel, edges: Edges) -> None:
        self.held: dict[Address, HeldAddress] = {}
        self.verdict = Verdict(KEEP)
        self.trouble: str | None = "nothing is known yet"
        self.interface: str | None = None
        self.own: tuple[Address, ...] = ()
        self.changed = asyncio.Event()  # something that others should hear of
        self.moves: deque[VipMoved] = deque(maxlen=_REMEMBERED)  # for whoever tells of them
        self._settings = settings
        self._known = known
        self.keeper = keeper
        self._kernel = kernel
        self._edges = edges
        self._written: int | None = None
        self._told: str | None = None  # why not, as the log has it
        self._stale_since: dict[Place, float] = {}
        self._missing_since: dict[Address, float] = {}
        self._reported: VipNode | None = None

    @property
    def report(self) -> VipNode:
        """What this node has in force."""
        instances = self.keeper.running.instances
        names = {peer.name for instance in instances for peer in instance.peers}
        return VipNode(
            node=self._settings.node,
            revision=self._known.agreed.revision if self.keeper.settled else 0,
            peers=tuple(sorted({*names, self._settings.node})) if instances else (),
            held=tuple(self.held[address] for address in sorted(self.held, key=order)),
            held_back=self.verdict.reason,
        )

    @property
    def scene(self) -> Scene:
        """What is here, and what should be."""
        keepalived = self.keeper.keepalived
        return Scene(self._kernel.places, self._index, self.keeper.running, keepalived.alive(), self.keeper.ours)

    @property
    def _index(self) -> int | None:
        """The interface of the addresses, by what keepalived was told where no plan says it."""
        name = self.interface or interface_of(self.keeper.keepalived.text)
        try:
            return socket.if_nametoindex(name) if name else None
        except OSError:
            return None

    def missing(self) -> frozenset[Address]:
        """Addresses that keepalived believes to have, and has not."""
        return frozenset(missing(self.scene))

    async def plan(self, news: asyncio.Event) -> None:
        """Does what follows from what is known, until cancelled."""
        while True:
            self._want()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await news.wait()
            news.clear()

    async def watch(self) -> None:
        """Looks after the addresses that are here, until cancelled."""
        while True:
            if self._kernel.known:
                self._look(self.scene)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._kernel.changed.wait()
            self._kernel.changed.clear()

    async def judge(self) -> None:
        """Writes at once what an edge's change means, until cancelled."""
        while True:
            await self._edges.changed.wait()
            self._edges.changed.clear()
            self._judge()

    def _want(self) -> None:
        plan = self._known.lawful.plan
        here = next((member for member in plan.members if member.name == self._settings.node), None)
        if here is not None:
            self.own = tuple(ip_address(text) for text in (here.v4, here.v6) if text)
            interface = self._interface(here)
            self.interface = interface or self.interface
            if interface is not None:
                try:
                    wanted = layout(plan, here.name, self._settings.first_vrid, self._settings.groups)
                except TooManyError as error:
                    self.trouble = str(error)
                else:
                    self.trouble = None
                    self._judge()
                    if self._written is not None:  # an instance that finds no track file may hold addresses
                        self.keeper.want(wanted, self._settings.style(interface))
        else:
            self.trouble = f"node {self._settings.node} is in no plan"
        self._judge()
        if self.report != self._reported:
            self._reported = self.report
            self.changed.set()

    def _interface(self, here: Member) -> str | None:
        if self._settings.interface != "auto":
            return self._settings.interface
        own = {here.v4, here.v6} - {""}
        for place in sorted(self._kernel.places, key=lambda place: (place.interface, *order(place.address))):
            if str(place.address) in own:
                name = socket.if_indextoname(place.interface)
                if INTERFACE.fullmatch(name):
                    return name
        self.trouble = f"no interface has {' or '.join(sorted(own))}, the InternalIP of node {here.name}; name one with --interface"
        return None

    def _judge(self) -> None:
        if not self._edges.asked:
            return
        members = self._known.present
        settings = self._settings
        self.verdict = verdict(settings.node, members, self._known.heard, self._edges.unready, settings.unready)
        metrics.HELD_BACK.set(int(self.verdict.value != KEEP))
        if self.verdict.value != self._written:
            try:
                atomic_write(self._settings.track_file, f"{self.verdict.value}\n".encode(), 0o644)
            except OSError as error:  # it is tried again at the next look
                self._unwritten(error)
            else:
                self._written, self._told = self.verdict.value, None
                log.info("track_file.written", value=self.verdict.value, reason=self.verdict.reason)
                self.changed.set()

    def _unwritten(self, error: OSError) -> None:
        """Keepalived could not be told whether this node may hold addresses."""
        self.trouble = (
            f"{self._settings.track_file} cannot be written: {error.strerror}; make room there: until then keepalived goes by what was "
            "true of this node before"
        )
        if self._told != self.trouble:
            log.error("track_file.failed", reason=self.trouble)
        self._told = self.trouble

    def _look(self, scene: Scene) -> None:
        now = asyncio.get_running_loop().time()
        self._note(scene)
        self._stale_since = {place: self._stale_since.get(place, now) for place in stale(scene)}
        for place, since in self._stale_since.items():
            if now - since >= self._settings.stale_after:
                log.warning("address.swept", address=str(place.address), interface=place.interface, alive=scene.alive)
                metrics.SWEPT.inc()
                self._kernel.remove(place)
        self._missing_since = {address: self._missing_since.get(address, now) for address in missing(scene)}
        if self.keeper.settled and any(now - since >= self._settings.stale_after for since in self._missing_since.values()):
            log.warning("addresses.missing", count=len(self._missing_since))
            self._missing_since = {}
            self.keeper.mend()

    def _note(self, scene: Scene) -> None:
        """Tells of what came and went."""
        held = scene.held
        metrics.HELD.set(len(held))
        metrics.MASTERS.set(len(scene.masters))
        before = dict(self.held)
        for address in sorted(held.keys() - before.keys(), key=order):
            self.held[address] = HeldAddress(ip=str(address), group=held[address].group, since=timestamp())
            metrics.MOVES.labels("here").inc()
            self._moved(address, self.held[address], held=True)
        for address in sorted(before.keys() - held.keys(), key=order):
            metrics.MOVES.labels("away").inc()
            self._moved(address, self.held.pop(address), held=False)
        if self.held.keys() != before.keys():
            self.changed.set()

    def _moved(self, address: Address, holding: HeldAddress, *, held: bool) -> None:
        place = instance_name(address.version, holding.group)
        log.info("address.held" if held else "address.released", address=str(address), instance=place)
        settings = self._settings
        fact = VipMoved(instance=settings.instance, node=settings.node, ip=str(address), place=place, held=held)
        self.moves.append(fact)
