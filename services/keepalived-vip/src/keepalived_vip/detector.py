"""The link: who else has an address that this node holds, and that this node is there again when its cable is.

The link is asked again and again for each address that this node holds.

A node that lost sight of the others, a machine that was given one of our addresses by hand, a second cluster with the same pool: all of
them answer, and clients reach now one and now the other. Nothing is done about it here but to tell, since only a person knows who is right.

A node whose cable was away is not sent anything for up to a second after it is back: the others have given up to find it, and ask for it
once a second. Its keepalived would hear no master in that time, and become a second one. So it announces itself.
"""

import asyncio
import contextlib
import fcntl
import math
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from typing import Final

import structlog

from keepalived_vip import metrics
from keepalived_vip.model import Address, order
from keepalived_vip.neighbours import (
    ETHERNET,
    SURE,
    Claim,
    Mac,
    Rival,
    Sighting,
    arp_announcement,
    arp_claim,
    arp_question,
    ndp_announcement,
    ndp_claim,
    ndp_question,
    rivals,
    solicited_node,
)

_TICK: Final = 0.25
_ANNOUNCEMENTS: Final = 8  # in the two seconds after a cable is back: a switch may take some to let anything through
_AGAIN: Final = 30.0  # seconds until sockets that could not be opened are tried again
_ARP_PROTOCOL: Final = 0x0806
_OUTGOING: Final = 4  # PACKET_OUTGOING
_FLAGS: Final = 0x8913  # SIOCGIFFLAGS
_RUNNING: Final = 0x40  # IFF_RUNNING
_HARDWARE: Final = 0x8927  # SIOCGIFHWADDR
_REQUEST: Final = struct.Struct("16sH6s16x")
_FILTER: Final = struct.pack("8I", *(0xFFFFFFFF & ~(1 << 136 % 32) if word == 136 // 32 else 0xFFFFFFFF for word in range(8)))
_HOPS: Final = 255  # no router lets such a packet through (RFC 4861 §7.1.2)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Ears:
    """Two sockets on one interface; `mac` is its own, `own` are those of all interfaces of the machine."""

    arp: socket.socket
    ndp: socket.socket
    index: int
    mac: Mac
    own: frozenset[Mac]


class Detector:
    """Asks on the interface that `where` names for what `held` lists, each address every `interval` seconds; 0 is never. `own` are the
    addresses of the node itself.
    """

    def __init__(
        self,
        where: Callable[[], str | None],
        held: Callable[[], Collection[Address]],
        own: Callable[[], Collection[Address]],
        interval: float,
    ) -> None:
        self.trouble: str | None = None
        self._where = where
        self._held = held
        self._own = own
        self._interval = interval
        self._seen: dict[Rival, Sighting] = {}
        self._due: dict[Address, float] = {}

    @property
    def rivals(self) -> tuple[Rival, ...]:
        """Who else has an address of ours."""
        return tuple(rivals(self._seen, asyncio.get_running_loop().time(), 2.5 * self._interval + SURE))

    async def run(self) -> None:
        """Asks until cancelled."""
        while True:
            interface = self._where()
            if interface is None:
                await asyncio.sleep(_TICK)
                continue
            try:
                with _listening(interface, self._hear) as ears:
                    self.trouble = None
                    await self._ask(ears, interface)
            except OSError as error:
                self.trouble = (
                    f"addresses held twice would not be noticed: nobody can be asked on {interface} ({error.strerror or error})"
                )
                log.warning("detector.off", interface=interface, reason=str(error))
                await asyncio.sleep(_AGAIN)

    async def _ask(self, ears: _Ears, interface: str) -> None:
        """Asks for what is due, in such portions that all have their turn, for as long as the interface is ours."""
        loop = asyncio.get_running_loop()
        up, announce = True, 0
        while self._where() == interface:
            now = loop.time()
            up, before = _is_up(ears.arp, interface), up
            announce = _ANNOUNCEMENTS if up and not before else max(0, announce - 1)
            for address in self._own() if announce else ():
                _announce(ears, address)
            held = set(self._held()) if self._interval else set()
            self._due = {address: self._due.get(address, now) for address in held}
            self._seen = {rival: one for rival, one in self._seen.items() if rival.address in held}
            due = sorted((address for address in held if self._due[address] <= now), key=lambda one: (self._due[one], order(one)))
            for address in due[: max(4, math.ceil(len(held) * _TICK / (self._interval or 1)))]:
                self._due[address] = now + self._interval
                _send(ears, address)
            await asyncio.sleep(_TICK)

    def _hear(self, claim: Claim, own: Collection[Mac]) -> None:
        if claim.mac in own or claim.address not in self._due:
            return
        now = asyncio.get_running_loop().time()
        rival = Rival(claim.address, claim.mac)
        if rival not in self._seen:
            log.warning("address.claimed", address=str(claim.address), mac=claim.mac.hex(":"))
            self._due[claim.address] = min(self._due[claim.address], now + SURE)
        self._seen[rival] = Sighting(self._seen.get(rival, Sighting(now, now)).first, now)
        metrics.DUPLICATES.inc()


@contextmanager
def _listening(interface: str, hear: Callable[..., None]) -> Iterator[_Ears]:
    """Sockets that call `hear` with each claim, and the machine's own link-layer addresses."""
    loop = asyncio.get_running_loop()
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as arp,
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as ndp,
    ):
        ears = _Ears(arp, ndp, socket.if_nametoindex(interface), _mac(arp, interface), _own(arp))
        arp.bind((interface, _ARP_PROTOCOL))
        ndp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        ndp.setsockopt(socket.IPPROTO_ICMPV6, 1, _FILTER)  # ICMP6_FILTER: advertisements alone pass
        ndp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
        ndp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        ndp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        for one, read in ((arp, _read_arp), (ndp, _read_ndp)):
            one.setblocking(False)  # noqa: FBT003
            loop.add_reader(one, _pass_on, read, one, partial(hear, own=ears.own))
        try:
            yield ears
        finally:
            loop.remove_reader(arp)
            loop.remove_reader(ndp)


def _pass_on(read: Callable[[socket.socket], Iterator[Claim | None]], one: socket.socket, hear: Callable[[Claim], None]) -> None:
    for claim in read(one):
        if claim is not None:
            hear(claim)


def _read_arp(arp: socket.socket) -> Iterator[Claim | None]:
    with contextlib.suppress(BlockingIOError):
        while True:
            data, (_, _, kind, *_) = arp.recvfrom(256)
            if kind != _OUTGOING:
                yield arp_claim(data)


def _read_ndp(ndp: socket.socket) -> Iterator[Claim | None]:
    with contextlib.suppress(BlockingIOError):
        while True:
            data, more, _, _ = ndp.recvmsg(2048, 64)
            if any(kind == socket.IPV6_HOPLIMIT and value[:1] == bytes((_HOPS,)) for _, kind, value in more):
                yield ndp_claim(data)


def _send(ears: _Ears, address: Address) -> None:
    """One question. A link that is down loses it, as it would lose the answer."""
    with contextlib.suppress(OSError):
        if isinstance(address, IPv4Address):
            everybody = (ears.arp.getsockname()[0], _ARP_PROTOCOL, 0, ETHERNET, b"\xff" * 6)
            ears.arp.sendto(arp_question(address, ears.mac), everybody)
        else:
            ears.ndp.sendto(ndp_question(address, ears.mac), (solicited_node(address), 0, 0, ears.index))


def _announce(ears: _Ears, address: Address) -> None:
    """Tells all neighbours where `address` is."""
    with contextlib.suppress(OSError):
        if isinstance(address, IPv4Address):
            ears.arp.sendto(
                arp_announcement(address, ears.mac), (ears.arp.getsockname()[0], _ARP_PROTOCOL, 0, ETHERNET, b"\xff" * 6)
            )
        else:
            ears.ndp.sendto(ndp_announcement(address, ears.mac), ("ff02::1", 0, 0, ears.index))


def _is_up(asked: socket.socket, interface: str) -> bool:
    answer = fcntl.ioctl(asked, _FLAGS, _REQUEST.pack(interface.encode(), 0, bytes(6)))
    return bool(_REQUEST.unpack(answer)[1] & _RUNNING)


def _own(asked: socket.socket) -> frozenset[Mac]:
    found = set()
    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError):
            found.add(_mac(asked, name))
    return frozenset(found)


def _mac(asked: socket.socket, interface: str) -> Mac:
    """The interface's link-layer address. Raises OSError where it is no Ethernet."""
    answer = fcntl.ioctl(asked, _HARDWARE, _REQUEST.pack(interface.encode(), 0, bytes(6)))
    _, kind, mac = _REQUEST.unpack(answer)
    if kind != ETHERNET:
        raise OSError(f"{interface} is no Ethernet")
    return bytes(mac)
