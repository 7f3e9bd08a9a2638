"""Addresses and networks, read from text that somebody wrote.

Python takes an IPv6 address with a zone, `fe80::1%eth0`, and any text as the name of the zone (RFC 4007 §11), and gives that text back when
it writes the address. No address that is given, served or answered from has a zone; and what becomes part of a command or of a
configuration may not be anybody's text. So here an address with a zone is none.
"""

import ipaddress
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def read_address(text: str) -> Address:
    """An address. Raises ValueError."""
    return ipaddress.ip_address(_plain(text))


def read_network(text: str) -> Network:
    """A network; bits of a host are dropped. Raises ValueError."""
    return ipaddress.ip_network(_plain(text), strict=False)


def _plain(text: str) -> str:
    if "%" in text:
        raise ValueError(f"{text!r} has a zone; write it without")
    return text
