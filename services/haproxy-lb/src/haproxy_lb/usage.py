"""Usage: how many addresses of each pool are in use, and how many wait in quarantine."""

from collections.abc import Iterable
from dataclasses import dataclass

from common.pools import Pools
from haproxy_lb.book import Reservation


@dataclass(frozen=True, slots=True)
class Used:
    """The addresses of one family in a pool. `size` is at most what a signed 64-bit number holds."""

    pool: str
    family: int
    size: int
    used: int
    waiting: int


def usage(pools: Pools | None, reservations: Iterable[Reservation]) -> tuple[Used, ...]:
    """How much of each pool is used, sorted as pools are."""
    if pools is None:
        return ()
    reserved = tuple(reservations)
    in_use = {one.address for one in reserved if not one.released}
    waiting = {one.address for one in reserved if one.released} - in_use
    counts: dict[tuple[str, int], list[int]] = {}
    for pool in pools.pools:
        for one in pool.ranges:
            counts.setdefault((pool.name, one.family), [0, 0, 0])[0] += len(one)
    for place, addresses in ((1, in_use), (2, waiting)):
        for address in addresses:
            holder = pools.of(address)
            if holder is not None:
                counts[holder.name, address.version][place] += 1
    return tuple(Used(name, family, min(size, 2**63 - 1), used, wait) for (name, family), (size, used, wait) in counts.items())
