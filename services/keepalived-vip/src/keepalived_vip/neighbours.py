"""Questions to the neighbours on a link, "who has this address?", and what they answer: ARP (RFC 826) and NDP (RFC 4861).

Who holds an address asks for it himself. The question of ARP is a probe (RFC 5227 §2.1.1): it names no sender, so nobody learns anything
from it. Whoever answers has the address too. A claim is an answer, or the announcement of somebody who has just taken an address.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from keepalived_vip.model import Address, order

ETHERNET: Final = 1  # ARPHRD_ETHER
SURE: Final = 3.0  # seconds: while an address moves, two nodes answer for a moment
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_IPV4: Final = 0x0800
_REQUEST: Final = 1
_NOBODY: Final = bytes(6)
_SOLICITATION: Final = 135
_ADVERTISEMENT: Final = 136
_NDP: Final = struct.Struct("!BBHI16s")
_OVERRIDE: Final = 1 << 29
_SOURCE_LINK: Final = 1  # option: the sender's link-layer address
_TARGET_LINK: Final = 2
_SOLICITED_NODE: Final = int(IPv6Address("ff02::1:ff00:0"))  # RFC 4291 §2.7.1

Mac = bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says that he has an address."""

    address: Address
    mac: Mac


def arp_question(address: IPv4Address, mac: Mac) -> bytes:
    """A probe by whoever has `mac`."""
    return _ARP.pack(ETHERNET, _IPV4, 6, 4, _REQUEST, mac, bytes(4), _NOBODY, address.packed)


def arp_announcement(address: IPv4Address, mac: Mac) -> bytes:
    """An announcement of `mac`'s own address (RFC 5227 §3)."""
    return _ARP.pack(ETHERNET, _IPV4, 6, 4, _REQUEST, mac, address.packed, _NOBODY, address.packed)


def arp_claim(data: bytes) -> Claim | None:
    """What a packet of ARP says of its sender. A probe claims nothing."""
    if len(data) < _ARP.size:
        return None
    hardware, protocol, hardware_size, protocol_size, _, sender, address, _, _ = _ARP.unpack_from(data)
    if (hardware, protocol, hardware_size, protocol_size) != (ETHERNET, _IPV4, 6, 4) or address == bytes(4):
        return None
    return Claim(IPv4Address(address), sender)


def ndp_question(address: IPv6Address, mac: Mac) -> bytes:
    """A solicitation by whoever has `mac`, for a raw socket, where the kernel adds the checksum."""
    return _NDP.pack(_SOLICITATION, 0, 0, 0, address.packed) + bytes((_SOURCE_LINK, 1)) + mac


def ndp_announcement(address: IPv6Address, mac: Mac) -> bytes:
    """An unsolicited advertisement of `mac`'s own address (RFC 4861 §7.2.6)."""
    return _NDP.pack(_ADVERTISEMENT, 0, 0, _OVERRIDE, address.packed) + bytes((_TARGET_LINK, 1)) + mac


def ndp_claim(data: bytes) -> Claim | None:
    """What an advertisement says of its sender, if it names a link-layer address."""
    if len(data) < _NDP.size or data[0] != _ADVERTISEMENT:
        return None
    options = data[_NDP.size :]
    while len(options) >= 8 and options[1]:
        if options[0] == _TARGET_LINK and options[1] == 1:
            return Claim(IPv6Address(_NDP.unpack_from(data)[4]), options[2:8])
        options = options[options[1] * 8 :]
    return None


def solicited_node(address: IPv6Address) -> str:
    """The group to which a question for `address` is sent."""
    return str(IPv6Address(_SOLICITED_NODE | int(address) & 0xFFFFFF))


@dataclass(frozen=True, slots=True)
class Rival:
    """Somebody else who has an address of ours, by `mac`."""

    address: Address
    mac: Mac

    def __str__(self) -> str:
        return f"{self.address} (at {self.mac.hex(':')})"


@dataclass(frozen=True, slots=True)
class Sighting:
    """When a rival was seen first and last, in seconds of our own clock."""

    first: float
    last: float


def rivals(seen: Mapping[Rival, Sighting], now: float, forget: float) -> Iterator[Rival]:
    """Those that went on claiming for longer than a move takes, and have done so in the last `forget` seconds; sorted."""
    sure = (rival for rival, one in seen.items() if one.last - one.first >= SURE and now - one.last <= forget)
    yield from sorted(sure, key=lambda rival: (order(rival.address), rival.mac))
