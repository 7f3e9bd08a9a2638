"""Claims: what the Services of type LoadBalancer ask for, as values that allocation can compare.

A claim is made of one Service and the labels of its namespace (`derive.claims`), and says what the Service has been given already, as its
status shows it.
"""

from dataclasses import dataclass
from typing import NamedTuple

from common.contracts.ip import Address
from common.contracts.objects import Service
from common.contracts.refs import ObjectRef


@dataclass(frozen=True, slots=True, order=True)
class ServiceName:
    """A Service."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def ref(self) -> ObjectRef:
        """The object."""
        return ObjectRef(Service.resource, self.namespace, self.name)


class Port(NamedTuple):
    """A port of a Service: two Services may share an address if they have none in common."""

    protocol: str
    number: int

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Shown:
    """An address in the status of a Service, and the ports that it shows to be served there."""

    address: Address
    ports: frozenset[Port]


@dataclass(frozen=True, slots=True)
class Claim:
    """What one Service asks for.

    `families` (4, 6) in the order of its wish; with `all_or_none` one without the other is of no use. `requested` are the addresses that it
    names, at most one a family, and `pool` the pool. `sharing` is the key under which it shares addresses; empty is not at all.
    """

    service: ServiceName
    created: str
    families: tuple[int, ...]
    ports: frozenset[Port]
    all_or_none: bool = False
    requested: tuple[Address, ...] = ()
    pool: str = ""
    sharing: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    namespace_labels: tuple[tuple[str, str], ...] = ()
    shown: tuple[Shown, ...] = ()

    @property
    def seniority(self) -> tuple[str, ServiceName]:
        """Who comes first where something else does not decide: the older Service."""
        return self.created, self.service

    def request(self, family: int) -> Address | None:
        """The address of `family` that it names."""
        return next((address for address in self.requested if address.version == family), None)

    def showed(self, address: Address) -> Shown | None:
        """What its status shows of `address`."""
        return next((shown for shown in self.shown if shown.address == address), None)
