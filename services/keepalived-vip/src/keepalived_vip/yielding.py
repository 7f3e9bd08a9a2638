"""When a node gives its addresses up though keepalived runs well: what stands in the track file, and why.

keepalived adds the number to its priority; at -254 an instance is at fault, says so with its last advertisement, and another node takes
over at once (keepalived.conf(5), track_file). A smaller number only lowers the priority, so the addresses go when somebody may preempt.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from common.contracts.vips import VipNode
from keepalived_vip.model import Member, Standing

KEEP: Final = 0
GIVE_UP: Final = -254
STEP_BACK: Final = -100

Policy = Literal["release", "lower"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The number for the track file, and why it is not 0, in a sentence."""

    value: int
    reason: str = ""


def verdict(
    node: str, members: Collection[Member], strangers: Collection[str], unready: Mapping[str, str], policy: Policy
) -> Verdict:
    """`strangers` are nodes that hold addresses and do not hear us yet; `unready` says what is wrong with which edge of this node."""
    here = next((member for member in members if member.name == node), None)
    if here is None:
        return Verdict(GIVE_UP, f"node {node} takes no part: it is not known, not selected, or has no InternalIP")
    if here.standing is Standing.OUT:
        return Verdict(GIVE_UP, f"node {node} is excluded from load balancers, or being deleted")
    if strangers:
        return Verdict(
            GIVE_UP, f"these nodes do not hear node {node} yet, and would hold what it holds: {', '.join(sorted(strangers))}"
        )
    others = [member for member in members if member.name != node]
    if here.standing is Standing.CORDONED and any(member.standing is Standing.WELL for member in others):
        return Verdict(GIVE_UP, f"node {node} is cordoned, and others can hold its addresses")
    if unready:
        edge, fault = min(unready.items())
        more = f" and {len(unready) - 1} more" if len(unready) > 1 else ""
        return Verdict(GIVE_UP if policy == "release" else STEP_BACK, f"edge {edge}{more} is not ready: {fault}")
    return Verdict(KEEP)


def strangers(node: str, members: Collection[Member], heard: Mapping[str, VipNode]) -> tuple[str, ...]:
    """The nodes that speak VRRP and do not hear `node`. One that is silent holds nothing, as far as is known."""
    well = [member.name for member in members if member.name != node and member.standing is not Standing.UNREADY]
    return tuple(name for name in sorted(well) if name in heard and heard[name].peers and node not in heard[name].peers)
