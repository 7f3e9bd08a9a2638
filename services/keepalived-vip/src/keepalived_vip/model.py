"""What floating addresses look like to this service.

The cluster has a fixed number of *groups*. An address is put into a group when it is first wanted and stays there, also when it is wanted
again later: a node that is a few plans behind must not hold it by one group while another node holds it by another. A group has a *home*,
the node that should hold its addresses. So addresses spread over the nodes by their groups' homes, and a node that comes or goes changes
homes, not groups. On each node a group is one VRRP *instance* a family (RFC 9568 §1.2: a virtual
router is of one family), always there, also without an address: so an address comes and goes, and no instance does.

    Plan      group of each address, home of each group, members    the same on all nodes
    Layout    the instances of one node with their addresses        what keepalived.conf says
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from common.contracts.vips import instance_name

Address = IPv4Address | IPv6Address
Family = Literal[4, 6]
FAMILIES: tuple[Family, ...] = (4, 6)
MOST_NODES: Final = 200  # the priorities of a group have to differ, and end at 254 (RFC 9568 §5.2.4)


def family_of(address: Address) -> Family:
    """4 or 6."""
    return 4 if isinstance(address, IPv4Address) else 6


def order(address: Address) -> tuple[int, int]:
    """A key that sorts addresses of both families."""
    return (address.version, int(address))


class Standing(IntEnum):
    """How much a node is wanted as a home."""

    WELL = 0
    UNREADY = 1  # its kubelet is silent, which says little of its network
    CORDONED = 2  # somebody means to empty it
    OUT = 3  # excluded: never


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A node that takes part: its name, its own addresses (one a family, as text), its standing."""

    name: str
    v4: str = ""
    v6: str = ""
    standing: Standing = Standing.WELL

    def address(self, family: Family) -> str:
        """Its own address of that family, or nothing."""
        return self.v4 if family == 4 else self.v6


@dataclass(frozen=True, slots=True)
class Plan:
    """What all nodes agree on. `former` are the groups of addresses that are wanted no more, the one that was given up last at the end."""

    groups: Mapping[Address, int] = field(default_factory=dict)
    homes: Mapping[int, str] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    former: Mapping[Address, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, as one instance sees it."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Instance:
    """A VRRP instance: one group in one family on one node. `addresses` are sorted."""

    group: int
    family: Family
    vrid: int
    priority: int
    source: str
    peers: tuple[Peer, ...]
    addresses: tuple[Address, ...]

    @property
    def name(self) -> str:
        """As keepalived calls it."""
        return instance_name(self.family, self.group)


@dataclass(frozen=True, slots=True)
class Layout:
    """All instances of a node, in the order in which they stand in the file."""

    instances: tuple[Instance, ...] = ()

    @property
    def holders(self) -> Mapping[Address, str]:
        """The instance of each address; of several the last one."""
        return {address: instance.name for instance in self.instances for address in instance.addresses}
