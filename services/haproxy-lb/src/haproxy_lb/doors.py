"""Doors: an address for each slot, at which HAProxy listens for that slot alone.

A connection that arrives at a slot's door needs no rule and no look-up in HAProxy: where it came in says all. So plain fronts of IPv4 lead
to doors, and the others to the hall, which is one for all: there HAProxy asks where a connection was meant to go (`desire`). Fronts of
IPv6 lead there too, since nobody can listen at an IPv6 address that no interface has. Slots of kinds that are rare have no door.

The addresses are of a network that is nobody's (RFC 1112 §4); a route of ours makes them this machine's. The kernel lets nobody in whom
it has not sent there itself, and no handshake begins at a door to which no front leads. What may be left when a slot is given to another
Service is a handshake from before, or a connection that HAProxy has not taken yet. Both end when HAProxy stops to listen, so it is told
to do that, and to go on, when a slot is given up (`plan`). Not when it is given anew: now and then HAProxy finds at that moment that it
cannot take a connection, and then takes none at that door for 100 ms.
"""

from functools import lru_cache
from ipaddress import IPv4Network
from typing import Final

from haproxy_lb.slots import Kind, Slot, parse

NETWORK: Final = IPv4Network("240.83.0.0/16")
HALL: Final = str(NETWORK[1])
_KINDS: Final = (Kind(), Kind(http=True), Kind("leastconn"), Kind("source"))
_OF_A_KIND: Final = 16_000
_FIRST: Final = NETWORK[2]


@lru_cache(maxsize=16384)
def door(slot: Slot) -> str:
    """The address of a slot's door; nothing if it has none."""
    found = parse(slot)
    if found is None or found[0] not in _KINDS or found[1] >= _OF_A_KIND:
        return ""
    return str(_FIRST + _OF_A_KIND * _KINDS.index(found[0]) + found[1])


def is_door(address: str) -> bool:
    """Whether an address to which fronts lead is that of a door."""
    return ":" not in address and address != HALL
