"""Book: who has which address, while that is decided.

It opens with who had what, and lets only happen what keeps its promises: no port of an address has two owners, only Services that agree
share an address, and what waits for one Service is given to no other. Who gets what within that is for `allocation` to say.

Free addresses are searched from where the last search ended, so a pool of any size costs what is in use of it.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from common.contracts.ip import Address
from common.pools import Pool, Pools, Range, address_of
from haproxy_lb.claims import Claim, Port, ServiceName

_Order: TypeAlias = tuple[bool, bool, int, int, int]
_NOBODY: Final[frozenset[ServiceName]] = frozenset()


@dataclass(frozen=True, slots=True)
class Reservation:
    """Who has an address, under which sharing key. `released`: since when not any more, in seconds since 1970; 0 while it is in use."""

    address: Address
    service: ServiceName
    sharing: str = ""
    released: int = 0

    @property
    def order(self) -> tuple[int, int, ServiceName]:
        """Where it stands among others."""
        return self.address.version, int(self.address), self.service


@dataclass(frozen=True, slots=True)
class Granted:
    """An address that a Service has. `refused` are those of its ports that another Service has there. `pool` is empty if none is known."""

    address: Address
    pool: str
    refused: tuple[tuple[Port, ServiceName], ...] = ()


class Book:
    """Who has what, while it is decided."""

    def __init__(self, pools: Pools | None, before: list[Reservation], now: int, taken: frozenset[Address]) -> None:
        self.pools = pools
        self.now = now
        self.given = 0  # how often something was given
        self._taken = taken
        self._before = before
        self._users: dict[Address, list[Claim]] = {}
        self._ports: dict[Address, dict[Port, ServiceName]] = {}
        self._has: dict[ServiceName, dict[int, Address]] = {}
        self._shared: dict[str, set[Address]] = {}
        self._awaited: dict[Address, set[ServiceName]] = {}  # for whom an address is kept that nobody has
        self._of: dict[ServiceName, list[Reservation]] = {}
        self._cursors: dict[Range, int] = {}
        for one in before:
            kept = self.until(one) > now
            if kept:
                self._awaited.setdefault(one.address, set()).add(one.service)
            if kept or not one.released:
                self._of.setdefault(one.service, []).append(one)

    def until(self, one: Reservation) -> int:
        """When the quarantine of an address ends that its owner has not, or never, if no pools are known."""
        released = one.released or self.now
        if self.pools is None:
            return released + 1
        pool = self.pools.of(one.address)
        return released + int(pool.quarantine) if pool is not None else 0

    def keep(self, seniors: list[Claim]) -> None:
        """Everybody keeps what he is recorded to have, and then what his status shows, if that can be."""
        recorded = {(one.address, one.service): one for one in self._before if not one.released}
        rounds: tuple[list[tuple[_Order, Claim, Address]], ...] = ([], [])
        for rank, claim in enumerate(seniors):
            for address, record in self._candidates(claim, recorded):
                other_key = record is not None and record.sharing != claim.sharing
                order = (other_key, claim.showed(address) is None, rank, address.version, int(address))
                rounds[record is None].append((order, claim, address))
        for pairs in rounds:
            for _, claim, address in sorted(pairs, key=lambda pair: pair[0]):
                if self.lacks(claim, address.version) and self._may_join(claim, address):
                    self._add(claim, address)
        for address, users in self._users.items():
            self._divide(address, users)

    def _candidates(
        self, claim: Claim, recorded: Mapping[tuple[Address, ServiceName], Reservation]
    ) -> Iterator[tuple[Address, Reservation | None]]:
        own = [one.address for one in self._of.get(claim.service, ()) if not one.released]
        addresses = dict.fromkeys([*own, *(shown.address for shown in claim.shown)])
        for address in addresses:
            if self.pools is None or self.pools.of(address) is not None:
                yield address, recorded.get((address, claim.service))

    def _divide(self, address: Address, users: list[Claim]) -> None:
        """Gives the ports of an address to its users: first those that each was seen to have."""
        ports = self._ports.setdefault(address, {})
        for claim in users:
            shown = claim.showed(address)
            for port in sorted(claim.ports & shown.ports) if shown else ():
                ports.setdefault(port, claim.service)
        for claim in users:
            for port in sorted(claim.ports):
                ports.setdefault(port, claim.service)

    def lacks(self, claim: Claim, family: int) -> bool:
        """Whether `claim` wants an address of `family` and has none."""
        return family in claim.families and family not in self._has.get(claim.service, {})

    def has(self, claim: Claim, family: int) -> Address | None:
        """The address of `family` that `claim` has."""
        return self._has.get(claim.service, {}).get(family)

    def pool_of(self, address: Address) -> Pool | None:
        """The pool of an address."""
        return self.pools.of(address) if self.pools is not None else None

    def obstacle(self, claim: Claim, address: Address) -> tuple[str, str] | None:
        """Why `claim` cannot newly get `address`: reason and sentence."""
        if address in self._taken:
            return "AddressConflict", f"{address} is an address of a node; choose another one"
        users = self._users.get(address, [])
        awaited = self._awaited.get(address, _NOBODY) - {claim.service}
        if not users and awaited and claim.service not in self._awaited.get(address, _NOBODY):
            return (
                "AddressConflict",
                f"{address} is kept for {listed(awaited)}, which had it{self._time(address)}; choose another one",
            )
        if not self._may_join(claim, address):
            names = listed(user.service for user in users)
            return (
                "AddressConflict",
                f"{address} belongs to {names}; choose another one, or let them share it by one value of seaway.dev/allow-shared-ip",
            )
        owners = self._ports.get(address, {})
        for port in sorted(claim.ports & owners.keys()):
            return "AddressConflict", f"port {port} of {address} belongs to {owners[port]}; choose another address or port"
        return None

    def give(self, claim: Claim, address: Address) -> None:
        """Gives what nothing stands against. What `claim` had of that family it has no more."""
        self.given += 1
        old = self.has(claim, address.version)
        if old is not None:
            self._users[old].remove(claim)
            self._ports[old] = {port: owner for port, owner in self._ports[old].items() if owner != claim.service}
            self._awaited.setdefault(old, set()).add(claim.service)
        self._add(claim, address)
        self._ports.setdefault(address, {}).update(dict.fromkeys(claim.ports, claim.service))

    def free(self, pool: Pool, family: int) -> Address | None:
        """The first address of a pool that nobody has, had a short while ago, or should not have."""
        for one in pool.ranges:
            if one.family != family:
                continue
            number = self._cursors.get(one, one.first)
            while number <= one.last and self._used(pool, address_of(family, number)):
                number += 1
            self._cursors[one] = number
            if number <= one.last:
                return address_of(family, number)
        return None

    def shared(self, claim: Claim) -> list[Address]:
        """The addresses whose users share under the key of `claim`, sorted."""
        found = self._shared.get(claim.sharing, set()) if claim.sharing else set()
        return sorted(
            (address for address in found if self._users.get(address)), key=lambda address: (address.version, int(address))
        )

    def waiting(self, claim: Claim) -> list[Address]:
        """The addresses that are kept for `claim`, the latest first."""
        own = [one for one in self._of.get(claim.service, ()) if one.released]
        return [one.address for one in sorted(own, key=lambda one: (-one.released, one.order))]

    def granted(self, claim: Claim) -> tuple[Granted, ...]:
        """What `claim` has, in the order of its families."""
        has = self._has.get(claim.service, {})
        return tuple(self._grant(claim, has[family]) for family in claim.families if family in has)

    def reservations(self, seniors: list[Claim]) -> Iterator[Reservation]:
        """Who has what, and who had it and is waited for; sorted."""
        having = [
            Reservation(granted.address, claim.service, claim.sharing) for claim in seniors for granted in self.granted(claim)
        ]
        now = {(one.address, one.service) for one in having}
        had = [one for one in self._before if (one.address, one.service) not in now]
        gone = [
            Reservation(one.address, one.service, one.sharing, one.released or self.now)
            for one in had
            if self.until(one) > self.now
        ]
        yield from sorted((*having, *gone), key=lambda one: one.order)

    def _grant(self, claim: Claim, address: Address) -> Granted:
        pool = self.pool_of(address)
        owners = self._ports.get(address, {})
        refused = tuple((port, owners[port]) for port in sorted(claim.ports) if owners.get(port, claim.service) != claim.service)
        return Granted(address, pool.name if pool else "", refused)

    def _add(self, claim: Claim, address: Address) -> None:
        self._users.setdefault(address, []).append(claim)
        self._has.setdefault(claim.service, {})[address.version] = address
        if claim.sharing:
            self._shared.setdefault(claim.sharing, set()).add(address)

    def _may_join(self, claim: Claim, address: Address) -> bool:
        """Whether all who have `address` share it with `claim`."""
        pool = self.pool_of(address)
        anywhere = pool is None or pool.sharing == "cluster"
        return all(
            claim.sharing and claim.sharing == user.sharing and (anywhere or user.service.namespace == claim.service.namespace)
            for user in self._users.get(address, ())
        )

    def _used(self, pool: Pool, address: Address) -> bool:
        return bool(self._users.get(address)) or address in self._awaited or address in self._taken or pool.avoids(address)

    def _time(self, address: Address) -> str:
        """Until when an address is kept, if that is known."""
        ends = [self.until(one) for one in self._before if one.address == address and one.released]
        return f", until {dt.datetime.fromtimestamp(max(ends), dt.UTC):%Y-%m-%dT%H:%M:%SZ}" if ends and self.pools else ""


def listed(names: Iterable[object]) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(map(str, names))) or "none"
