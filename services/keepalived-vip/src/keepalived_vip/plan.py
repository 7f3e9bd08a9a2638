"""The plan: which group an address is in, and which node is the home of each group.

`revise` is a pure function of the plan before, what is wanted and who is there, so that every node proposes the same. Nothing moves without
a cause: an address keeps its group while it is wanted, and has it again when it comes back; a group keeps its home for as long as that node
may be one, unless another has two groups fewer. Then the group with the fewest addresses goes, for a home that changes breaks connections.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from keepalived_vip.model import FAMILIES, Address, Family, Instance, Layout, Member, Peer, Plan, Standing, order

HIGHEST: Final = 240  # priority of the home; 255 would be "owner of the address" (RFC 9568 §5.2.4), 0 is "I leave"
_WIDEST: Final = 40  # between two nodes: the further apart, the surer is the first of them (RFC 9568 §6.1, Skew_Time)
_LAST_VRID: Final = 255
_REMEMBERED: Final = 1000  # addresses that are wanted no more


class TooManyError(ValueError):
    """A limit of VRRP is passed; the sentence names the knob."""


def revise(plan: Plan, wanted: Collection[Address], members: Collection[Member], count: int) -> Plan:
    """The next plan, with `count` groups. One that has become too many is kept until its last address is gone."""
    back = {address: group for address, group in plan.former.items() if group < count}
    known = {**back, **plan.groups}
    groups = {address: known[address] for address in sorted(wanted, key=order) if address in known}
    numbers = sorted({*range(count), *groups.values()})
    homes = _homes(plan.homes, numbers, Counter(groups.values()), members)
    for address in sorted(wanted, key=order):
        if address not in groups:
            groups[address] = _emptiest(groups, homes, range(count))
    gone = {address: group for address, group in (*plan.former.items(), *plan.groups.items()) if address not in groups}
    former = dict(list(gone.items())[-_REMEMBERED:])
    return Plan(dict(sorted(groups.items(), key=lambda item: order(item[0]))), homes, tuple(sorted(members)), former)


def layout(plan: Plan, node: str, first_vrid: int, count: int) -> Layout:
    """The instances of `node`. Every family that it has an address of has all groups. Raises TooManyError."""
    here = next((member for member in plan.members if member.name == node), None)
    numbers = sorted({*range(count), *plan.homes})
    if numbers and first_vrid + numbers[-1] > _LAST_VRID:
        raise TooManyError(
            f"group {numbers[-1]} would be VRID {first_vrid + numbers[-1]}, and the last one is {_LAST_VRID}; "
            "lower --first-vrid or --groups"
        )
    if here is None:
        return Layout()
    families = [family for family in FAMILIES if here.address(family)]
    return Layout(tuple(_instance(plan, here, family, number, first_vrid) for family in families for number in numbers))


def ranking(plan: Plan, group: int) -> tuple[str, ...]:
    """The nodes in the order in which they take over a group: its home, then the others by their standing, each group in another order."""
    home = plan.homes.get(group, "")
    others = sorted(member for member in plan.members if member.name != home)
    turn = group % len(others) if others else 0
    turned = sorted(others[turn:] + others[:turn], key=lambda member: member.standing)
    return tuple(member.name for member in plan.members if member.name == home) + tuple(member.name for member in turned)


def _instance(plan: Plan, here: Member, family: Family, group: int, first_vrid: int) -> Instance:
    ranked = ranking(plan, group)
    step = max(1, min(_WIDEST, (HIGHEST - 1) // len(ranked)))
    return Instance(
        group=group,
        family=family,
        vrid=first_vrid + group,
        priority=max(1, HIGHEST - step * ranked.index(here.name)),
        source=here.address(family),
        peers=tuple(
            Peer(member.name, member.address(family))
            for member in sorted(plan.members)
            if member.name != here.name and member.address(family)
        ),
        addresses=tuple(
            sorted((address for address, number in plan.groups.items() if number == group and address.version == family), key=int)
        ),
    )


def _homes(
    before: Mapping[int, str], numbers: Iterable[int], sizes: Mapping[int, int], members: Collection[Member]
) -> dict[int, str]:
    best = min((member.standing for member in members if member.standing is not Standing.OUT), default=Standing.OUT)
    able = sorted(member.name for member in members if member.standing is best is not Standing.OUT)
    if not able:
        return {}
    homes = {number: before[number] for number in numbers if before.get(number) in able}
    for number in numbers:
        if number not in homes:
            homes[number] = min(able, key=lambda name: (_load(homes, sizes, name), name))
    while True:
        least = min(able, key=lambda name: (_load(homes, sizes, name), name))
        most = max(able, key=lambda name: (_load(homes, sizes, name), name))
        if _load(homes, sizes, most)[0] - _load(homes, sizes, least)[0] < 2:
            return dict(sorted(homes.items()))
        moved = min((number for number, home in homes.items() if home == most), key=lambda number: (sizes.get(number, 0), number))
        homes[moved] = least


def _load(homes: Mapping[int, str], sizes: Mapping[int, int], name: str) -> tuple[int, int]:
    mine = [number for number, home in homes.items() if home == name]
    return len(mine), sum(sizes.get(number, 0) for number in mine)


def _emptiest(groups: Mapping[Address, int], homes: Mapping[int, str], numbers: Iterable[int]) -> int:
    """The smallest group of the node that is home to the fewest addresses."""
    sizes = Counter(groups.values())
    loads: Counter[str] = Counter()
    for number, home in homes.items():
        loads[home] += sizes[number]
    return min(numbers, key=lambda number: (loads[homes.get(number, "")], sizes[number], number))
