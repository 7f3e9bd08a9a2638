"""What stands among the wishes of a cluster about its load balancers: which addresses are to be held, who holds them, which endpoints are
unwell where. Pure.

Nodes repeat what they say, so one that was not heard for a while is silent: it may go on without the bus, and what it said last may be old.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from common.codec import CodecError, decode
from common.contracts.addresses import WHAT, AddressesWanted, WishError, read_wanted
from common.contracts.balancers import SERVICE as BALANCER
from common.contracts.balancers import BalancerFound, FindingError, read_found
from common.contracts.subjects import SubjectError
from common.contracts.subjects import decode as text_of
from common.contracts.vips import PLAN, VipError, VipNode, read_vip
from common.contracts.vips import SERVICE as VIP

SILENT: Final = 90.0  # seconds; three times as long as the slowest of them repeats


class Stored(Protocol):
    """A message as the bus has it; `time` in seconds since 1970."""

    @property
    def subject(self) -> str: ...  # noqa: D102 see above
    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def body(self) -> bytes: ...  # noqa: D102
    @property
    def time(self) -> float: ...  # noqa: D102
    @property
    def gone(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, slots=True, order=True)
class Holder:
    """A node that holds an address, by which VRRP instance, and since when (RFC 3339)."""

    node: str
    instance: str
    since: str
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Wished:
    """`wish` is None if no balancer has wished for any address. `faults` are messages that cannot be read, with the reason."""

    wish: AddressesWanted | None = None
    holders: Mapping[str, tuple[Holder, ...]] = field(default_factory=dict)
    balancers: Mapping[str, BalancerFound] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def unwell(self, namespace: str, service: str, port: int, endpoint: str) -> list[str]:
        """The nodes whose balancers find that an endpoint of a Service does not answer."""
        wanted = (namespace, service, port, endpoint)
        return sorted(
            node
            for node, found in self.balancers.items()
            if any((one.namespace, one.service, one.port, one.endpoint) == wanted for one in found.unwell)
        )


def read(messages: Iterable[Stored], now: float) -> Wished:
    """What the messages of one cluster say."""
    wish: AddressesWanted | None = None
    holders: dict[str, list[Holder]] = {}
    balancers: dict[str, BalancerFound] = {}
    faults: list[str] = []
    for message in messages:
        if message.gone:
            continue
        try:
            *_, service, what = (text_of(token) if index > 1 else token for index, token in enumerate(message.subject.split(".")))
            event = decode(message.headers, message.body)
            silent = now - message.time > SILENT
            if (service, what) == (BALANCER, WHAT):
                wish = read_wanted(event)
            elif service == BALANCER and not silent:
                said = read_found(event)
                balancers[said.node] = said
            elif service == VIP and what != PLAN:
                for ip, holder in _held(read_vip(VipNode, event), silent=silent):
                    holders.setdefault(ip, []).append(holder)
        except (CodecError, FindingError, SubjectError, ValueError, VipError, WishError) as error:
            faults.append(f"{message.subject} cannot be read: {error}")
    return Wished(wish, {ip: tuple(sorted(some)) for ip, some in sorted(holders.items())}, balancers, tuple(faults))


def _held(said: VipNode, *, silent: bool) -> Iterable[tuple[str, Holder]]:
    for one in said.held:
        yield one.ip, Holder(said.node, one.instance, one.since, silent)
