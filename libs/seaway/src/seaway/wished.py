"""What stands among the wishes of a cluster about its load balancers: which addresses are to be held, who should and who does hold them,
which endpoints are unwell where. Pure.

Nodes repeat what they say, so one that was not heard for a while is silent: it may go on without the bus, and what it said last may be old.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from common.codec import CodecError, decode
from common.contracts.addresses import WHAT, AddressesWanted, WishError, read_wanted
from common.contracts.balancers import SERVICE as BALANCER
from common.contracts.balancers import BalancerFound, FindingError, read_found
from common.contracts.subjects import SubjectError
from common.contracts.subjects import decode as text_of
from common.contracts.vips import PLAN, HeldAddress, VipError, VipNode, VipPlan, read_vip
from common.contracts.vips import SERVICE as VIP
from common.replica import TimedMessage

SILENT: Final = 20.0  # seconds; who holds addresses repeats every few
DEAF: Final = 90.0  # ... and a balancer every thirty
NO_PLAN: Final = VipPlan(instance="", revision=0)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a node said last, and when the bus stored that, in seconds since 1970."""

    said: VipNode
    at: float


@dataclass(frozen=True, slots=True)
class Wished:
    """All of it, as of `now`. `wish` is None if no balancer has wished for any address; `nodes` hold addresses by the `plan`. `faults` are
    messages that cannot be read, with the reason.
    """

    wish: AddressesWanted | None = None
    plan: VipPlan = NO_PLAN
    nodes: Mapping[str, Heard] = field(default_factory=dict)
    balancers: Mapping[str, BalancerFound] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    now: float = 0.0

    def silent(self, node: str) -> bool:
        """Whether nothing was heard for a while of a node that may hold addresses."""
        heard = self.nodes.get(node)
        return heard is None or self.now - heard.at > SILENT

    @property
    def holders(self) -> Mapping[str, Mapping[str, HeldAddress]]:
        """Address → the nodes that say that they hold it, by name, and how they do."""
        found: dict[str, dict[str, HeldAddress]] = {}
        for name, heard in sorted(self.nodes.items()):
            for one in heard.said.held:
                found.setdefault(one.ip, {})[name] = one
        return found

    def unwell(self, namespace: str, service: str, port: int, endpoint: str) -> list[str]:
        """The nodes whose balancers find that an endpoint of a Service does not answer."""
        wanted = (namespace, service, port, endpoint)
        return sorted(
            node
            for node, found in self.balancers.items()
            if any((one.namespace, one.service, one.port, one.endpoint) == wanted for one in found.unwell)
        )


def read(messages: Iterable[TimedMessage], now: float) -> Wished:
    """What the messages of one cluster say."""
    wish: AddressesWanted | None = None
    plan = NO_PLAN
    nodes: dict[str, Heard] = {}
    balancers: dict[str, BalancerFound] = {}
    faults: list[str] = []
    for message in messages:
        if message.gone:
            continue
        try:
            *_, service, what = (text_of(token) if index > 1 else token for index, token in enumerate(message.subject.split(".")))
            event = decode(message.headers, message.body)
            if (service, what) == (BALANCER, WHAT):
                wish = read_wanted(event)
            elif service == BALANCER and now - message.time <= DEAF:
                found = read_found(event)
                balancers[found.node] = found
            elif (service, what) == (VIP, PLAN):
                plan = read_vip(VipPlan, event)
            elif service == VIP:
                said = read_vip(VipNode, event)
                nodes[said.node] = Heard(said, message.time)
        except (CodecError, FindingError, SubjectError, ValueError, VipError, WishError) as error:
            faults.append(f"{message.subject} cannot be read: {error}")
    return Wished(wish, plan, nodes, balancers, tuple(faults), now)
