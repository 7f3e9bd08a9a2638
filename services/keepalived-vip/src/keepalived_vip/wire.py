"""The plan as it stands on the bus and on the disk, and back. What comes back is checked: the bus is open to whoever may write there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.contracts.ip import read_address
from common.contracts.vips import Home, PlannedAddress, PlannedNode, VipError, VipPlan
from keepalived_vip.model import MOST_NODES, Address, Member, Plan, Standing, order
from keepalived_vip.statics import unfit


@dataclass(frozen=True, slots=True)
class Agreed:
    """A plan with what goes with it: its revision, who wants each address, and what its maker had seen of STATE."""

    plan: Plan = field(default_factory=Plan)
    revision: int = 0
    owners: Mapping[Address, str] = field(default_factory=dict)
    created: str = ""
    through: int = 0


def dumped(agreed: Agreed, instance: str) -> VipPlan:
    """As a message."""
    plan = agreed.plan
    return VipPlan(
        instance=instance,
        revision=agreed.revision,
        created=agreed.created,
        through=agreed.through,
        nodes=tuple(PlannedNode(name=one.name, v4=one.v4, v6=one.v6, standing=one.standing) for one in sorted(plan.members)),
        addresses=tuple(
            PlannedAddress(ip=str(address), group=plan.groups[address], owner=agreed.owners.get(address, ""))
            for address in sorted(plan.groups, key=order)
        ),
        homes=tuple(Home(group=group, node=node) for group, node in sorted(plan.homes.items())),
        former=tuple(PlannedAddress(ip=str(address), group=group) for address, group in plan.former.items()),
    )


def loaded(message: VipPlan) -> Agreed:
    """From a message. Raises VipError for what no node could render."""
    try:
        members = tuple(sorted(_member(node) for node in message.nodes))
        groups = {read_address(one.ip): one.group for one in message.addresses}
        former = {read_address(one.ip): one.group for one in message.former}
    except ValueError as error:
        raise VipError(f"plan {message.revision} of {message.instance}: {error}") from error
    own = {address for member in members for address in (member.v4, member.v6) if address}
    homes = {home.group: home.node for home in message.homes}
    names = [member.name for member in members]
    bad = next((f"{address} {fault}" for address in groups if (fault := unfit(address, own))), None)
    if bad is None and len(set(names)) != len(names):
        bad = f"it has {len(names)} nodes, of which {len(set(names))} differ"
    if bad is None and len(names) > MOST_NODES:
        bad = f"it has {len(names)} nodes, and priorities suffice for {MOST_NODES}; name fewer with --node-selector"
    if bad is None and any(not 0 <= group <= 255 for group in (*groups.values(), *former.values(), *homes)):
        bad = "a group is not between 0 and 255"
    if bad is None and not set(homes.values()) <= set(names):
        bad = "a home is none of its nodes"
    if bad is not None:
        raise VipError(f"plan {message.revision} of {message.instance}: {bad}")
    owners = {read_address(one.ip): one.owner for one in message.addresses}
    plan = Plan(dict(sorted(groups.items(), key=lambda item: order(item[0]))), dict(sorted(homes.items())), members, former)
    return Agreed(plan, message.revision, owners, message.created, message.through)


def _member(node: PlannedNode) -> Member:
    for text, version in ((node.v4, 4), (node.v6, 6)):
        if text and (read_address(text).version != version or str(read_address(text)) != text):
            raise ValueError(f"{text!r} is no IPv{version} address of node {node.name}")
    return Member(node.name, node.v4, node.v6, Standing(node.standing))
