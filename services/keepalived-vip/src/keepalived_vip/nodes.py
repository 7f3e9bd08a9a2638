"""Nodes: who takes part in holding addresses, and how much each is wanted for it.

A node that fails stays a peer of the others for as long as its object is there: one that were left out, but lives, would hear nobody and
hold what others hold too. What changes is its standing, by which homes and priorities are given.

No more take part than there are priorities, and of more the oldest: who takes part is not pushed out by one that comes.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from common.contracts.ip import read_address
from common.contracts.objects import Node
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef
from keepalived_vip.model import MOST_NODES, Member, Standing

EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"  # KEP-1143; whatever its value
_INTERNAL: Final = "InternalIP"

Selector = dict[str, str | None]  # a value of None is "any"


def parse_selector(text: str) -> Selector:
    """`key=value,other` as a mapping. Raises ValueError."""
    wanted: Selector = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not key or "!" in part or " " in part:
            raise ValueError(f"{part!r} is neither a label nor label=value")
        wanted[key] = value if equals else None
    return wanted


def members(nodes: Iterable[Node], selector: Selector) -> tuple[tuple[Member, ...], tuple[Problem, ...]]:
    """The nodes that take part, sorted, and what is wrong with others."""
    found: list[Member] = []
    problems: list[Problem] = []
    taken: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: (node.metadata.creation_timestamp, node.metadata.name)):
        labels = node.metadata.labels
        if any(key not in labels or value not in {None, labels[key]} for key, value in selector.items()):
            continue
        name = node.metadata.name
        addresses = _addresses(node)
        twin = next((taken[address] for address in addresses.values() if address in taken), None)
        if twin is not None:
            problems.append(Problem(node.ref, "AddressTaken", f"its InternalIP is that of node {twin} too; give it one of its own"))
        elif not addresses:
            problems.append(Problem(node.ref, "NoAddress", "status.addresses has no InternalIP, so no VRRP can be spoken with it"))
        else:
            taken |= dict.fromkeys(addresses.values(), name)
            found.append(Member(name, addresses.get(4, ""), addresses.get(6, ""), standing(node)))
    problems += _too_many(found)
    return tuple(sorted(found[:MOST_NODES])), tuple(sorted(problems))


def own(nodes: Iterable[Node]) -> frozenset[str]:
    """The addresses of all nodes themselves, whether they take part or not."""
    return frozenset(address for node in nodes for address in _addresses(node).values())


def standing(node: Node) -> Standing:
    """How much a node is wanted as a home."""
    if EXCLUDED in node.metadata.labels or node.metadata.deletion_timestamp:
        return Standing.OUT
    ready = any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)
    if node.spec.unschedulable:
        return Standing.CORDONED
    return Standing.WELL if ready else Standing.UNREADY


def _too_many(found: Sequence[Member]) -> Iterable[Problem]:
    """One problem for all that are left out, as each node that looks finds the same."""
    if len(found) > MOST_NODES:
        first = ObjectRef(Node.resource, "", found[MOST_NODES].name)
        others = f"it and {len(found) - MOST_NODES - 1} more take" if len(found) > MOST_NODES + 1 else "it takes"
        fault = f"{others} no part: priorities suffice for {MOST_NODES} nodes, and the oldest have them; name fewer with --node-selector"
        yield Problem(first, "TooManyNodes", fault)


def _addresses(node: Node) -> dict[int, str]:
    """The first InternalIP of each family."""
    found: dict[int, str] = {}
    for entry in node.status.addresses:
        if entry.type != _INTERNAL:
            continue
        try:
            address = read_address(entry.address)
        except ValueError:
            continue
        found.setdefault(address.version, str(address))
    return found
