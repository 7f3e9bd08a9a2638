"""Addresses of interfaces, as the kernel speaks of them: messages of rtnetlink(7) to and from values.

A message is a `nlmsghdr`, then an `ifaddrmsg`, then attributes (netlink(7)); numbers are in the machine's own order. What is asked for and
what is told in between have the same form, so one reader serves both.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

FAMILIES: Final = {4: 2, 6: 10}  # AF_INET, AF_INET6
ADDRESS_GROUPS: Final = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR

_NEW: Final = 20  # RTM_NEWADDR
_DELETE: Final = 21  # RTM_DELADDR
_GET: Final = 22  # RTM_GETADDR
_ERROR: Final = 2  # NLMSG_ERROR
_DONE: Final = 3  # NLMSG_DONE
_REQUEST: Final = 0x1  # NLM_F_REQUEST
_ACKNOWLEDGE: Final = 0x4  # NLM_F_ACK
_DUMP: Final = 0x300  # NLM_F_DUMP
_ADDRESS: Final = 1  # IFA_ADDRESS
_LOCAL: Final = 2  # IFA_LOCAL
_HEADER: Final = struct.Struct("=IHHII")
_BODY: Final = struct.Struct("=BBBBi")
_ATTRIBUTE: Final = struct.Struct("=HH")
_CODE: Final = struct.Struct("=i")

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Place:
    """An address on an interface, by the interface's index."""

    interface: int
    address: Address
    prefix: int


@dataclass(frozen=True, slots=True)
class Told:
    """An address that is there (`here`), or is there no more."""

    place: Place
    here: bool
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of an answer to the request of that number; `code` is 0 or an errno(3)."""

    sequence: int
    code: int


def ask(sequence: int) -> bytes:
    """The request for all addresses of both families."""
    return _message(_GET, _REQUEST | _DUMP, sequence, _BODY.pack(0, 0, 0, 0, 0))


def delete(place: Place, sequence: int) -> bytes:
    """The request to take an address off its interface."""
    packed = place.address.packed
    body = _BODY.pack(FAMILIES[place.address.version], place.prefix, 0, 0, place.interface)
    return _message(_DELETE, _REQUEST | _ACKNOWLEDGE, sequence, body + _ATTRIBUTE.pack(4 + len(packed), _LOCAL) + packed)


def read(data: bytes) -> Iterator[Told | Answered]:
    """What a datagram of the kernel says. What is no affair of addresses is left out, and so is what is cut off."""
    while len(data) >= _HEADER.size:
        length, kind, _, sequence, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size or length > len(data):
            return
        body = data[_HEADER.size : length]
        if kind in {_NEW, _DELETE}:
            place = _place(body)
            if place is not None:
                yield Told(place, kind == _NEW, sequence)
        elif kind in {_ERROR, _DONE}:
            code = _CODE.unpack_from(body)[0] if len(body) >= _CODE.size else 0
            yield Answered(sequence, -code)
        data = data[(length + 3) & ~3 :]


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _place(body: bytes) -> Place | None:
    if len(body) < _BODY.size:
        return None
    _, prefix, _, _, interface = _BODY.unpack_from(body)
    found = dict(_attributes(body[_BODY.size :]))
    # IFA_LOCAL is the interface's own address; where there is none (IPv6), IFA_ADDRESS is it.
    packed = found.get(_LOCAL, found.get(_ADDRESS))
    if packed is None or len(packed) not in {4, 16}:
        return None
    return Place(interface, ip_address(packed), prefix)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size or length > len(data):
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
