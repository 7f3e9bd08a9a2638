"""Who holds what, by what all nodes say: addresses that several hold, and those that nobody does.

Nodes say again every few seconds what they hold. Of two that say so of one address, both do only if the earlier one said it once more well
after the later one began: when an address moves, the last word of who had it is a moment late.

Whether a node is silent is measured by what the bus has stored since: a bus that is away makes nobody silent, and what it kept of a node
that died long ago is no news for one that has just begun to listen.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from keepalived_vip.known import Heard
from keepalived_vip.model import Address, order

FRESH: Final = 20.0  # seconds for which a node that is silent is believed
_OVERLAP: Final = 3.0


def holders(heard: Mapping[str, Heard], address: Address, now: float) -> tuple[str, ...]:
    """The nodes that hold `address`, as far as is known."""
    return tuple(name for name, one in sorted(heard.items()) if str(address) in one.since and now - one.arrived < FRESH)


def twice(heard: Mapping[str, Heard], wanted: Iterable[Address], now: float) -> dict[Address, tuple[str, ...]]:
    """The addresses that several nodes hold for longer than a move takes, with those nodes."""
    found: dict[Address, tuple[str, ...]] = {}
    for address in sorted(wanted, key=order):
        names = holders(heard, address, now)
        began = {name: heard[name].since[str(address)] for name in names}
        latest = max(began.values(), default=0.0)
        if len(names) > 1 and min(heard[name].at for name in names) >= latest + _OVERLAP:
            found[address] = names
    return found


def nowhere(heard: Mapping[str, Heard], wanted: Iterable[Address], now: float) -> tuple[Address, ...]:
    """The addresses that nobody holds, sorted."""
    return tuple(address for address in sorted(wanted, key=order) if not holders(heard, address, now))


def silent(heard: Mapping[str, Heard], name: str) -> bool:
    """Whether the bus has words of others (our own are such) and for longer than `FRESH` none of `name`. Where it has none, nobody is."""
    newest = max((one.at for one in heard.values()), default=0.0)
    return bool(heard) and (name not in heard or newest - heard[name].at > FRESH)


def speaker(heard: Mapping[str, Heard], now: float) -> str:
    """The one node that tells of it for all: the first by name of those that are not silent."""
    return min((name for name, one in heard.items() if now - one.arrived < FRESH), default="")
