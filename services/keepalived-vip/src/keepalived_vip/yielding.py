"""When a node gives its addresses up though keepalived runs well: what stands in the track file, and why.

keepalived adds the number to its priority; at -254 an instance is at fault, says so with its last advertisement, and another node takes
over at once (keepalived.conf(5), track_file). A smaller number only lowers the priority, so the addresses go when somebody may preempt.

A node whose edge is not ready gives its addresses up only while another one can take them. Where no node's edge is ready, whoever is best
holds on: what answers wrongly is found sooner than what does not answer, and a question that is answered wrongly everywhere at once
(a port that was changed, a probe that was mistyped) takes no address off the network. Nor does a node give way to one that is most likely
gone: nobody vouches for its health, and it has been silent while others spoke. While the bus is away all are, and nobody's silence counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from common.contracts.vips import VipNode
from keepalived_vip.census import silent
from keepalived_vip.known import Heard
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
    node: str,
    members: Collection[Member],
    heard: Mapping[str, Heard],
    unready: Mapping[str, str],
    policy: Policy,
) -> Verdict:
    """`heard` is what nodes said last, `unready` what is wrong with which edge of this node."""
    strangers = _strangers(node, members, heard)
    here = next((member for member in members if member.name == node), None)
    if here is None:
        return Verdict(GIVE_UP, f"node {node} takes no part: it is not known, not selected, one too many, or has no InternalIP")
    if here.standing is Standing.OUT:
        return Verdict(GIVE_UP, f"node {node} is excluded from load balancers, or being deleted")
    if strangers:
        return Verdict(
            GIVE_UP, f"these nodes do not hear node {node} yet, and would hold what it holds: {', '.join(sorted(strangers))}"
        )
    others = [member for member in members if member.name != node]
    well = [member for member in others if member.standing is Standing.WELL and not silent(heard, member.name)]
    if here.standing is Standing.CORDONED and _relief(well, heard):
        return Verdict(GIVE_UP, f"node {node} is cordoned, and others can hold its addresses")
    return _by_edges(node, others, heard, unready, policy) if unready else Verdict(KEEP)


def _by_edges(
    node: str, others: Collection[Member], heard: Mapping[str, Heard], unready: Mapping[str, str], policy: Policy
) -> Verdict:
    edge, fault = min(unready.items())
    more = f" and {len(unready) - 1} more" if len(unready) > 1 else ""
    reason = f"edge {edge}{more} is not ready: {fault}"
    if policy == "lower":
        return Verdict(STEP_BACK, reason)
    if not _relief(others, heard):
        return Verdict(STEP_BACK, f"{reason}; no other node can take over, so node {node} holds on")
    return Verdict(GIVE_UP, reason)


def _strangers(node: str, members: Collection[Member], heard: Mapping[str, Heard]) -> tuple[str, ...]:
    """The nodes that speak VRRP and do not hear `node`. One that is silent holds nothing, as far as is known."""
    well = [member.name for member in members if member.name != node and member.standing is not Standing.UNREADY]
    return tuple(name for name in sorted(well) if name in heard and _deaf(heard[name].said, node))


def _deaf(said: VipNode, node: str) -> bool:
    return bool(said.peers) and node not in said.peers


def _relief(others: Collection[Member], heard: Mapping[str, Heard]) -> bool:
    """Whether one of `others` may hold addresses, as far as is known. One that is well and has not spoken is believed to be able."""
    able = [member for member in others if member.standing is not Standing.OUT]
    there = [member.name for member in able if member.standing is Standing.WELL or not silent(heard, member.name)]
    return any(name not in heard or not heard[name].said.held_back for name in there)
