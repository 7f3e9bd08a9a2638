"""What this node knows: nodes and static addresses from the replica, wishes of services, the plan, and what the others have in force.

`proposal` is what follows from it. It is none while anything is missing that it depends on, or while the plan in force was made by somebody
who had seen more of the replica than we: who is behind must not undo what others know. A service that has not spoken wants what it wanted
before, so that a bus which lost its messages takes no address away.

`lawful` is the plan without what this node has no ground to hold: whoever can write to the bus has skipped the API server, so an address
must be in a pool, or one that the operator named, or have been so when this node first heard of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from common.codec import CodecError, decode
from common.contracts.addresses import WHAT, AddressesWanted, WishError, read_wanted
from common.contracts.ip import read_address
from common.contracts.objects import ConfigMap, Node
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.contracts.subjects import SubjectError, wanted_subject
from common.contracts.subjects import decode as text_of
from common.contracts.vips import PLAN, SERVICE, VipError, VipNode, VipPlan, node_what, read_vip
from common.pools import Pools, read_pools
from common.replica import Comparison, Replica, StoredMessage, TimedMessage
from common.store import Store
from keepalived_vip.model import Address, Member, order
from keepalived_vip.nodes import Selector, members, own
from keepalived_vip.plan import revise
from keepalived_vip.statics import statics, unfit
from keepalived_vip.wire import Agreed, loaded

FOLLOWED: Final = (Node.resource,)
STATIC: Final = "static"
_MESSAGES: Final = Resource("seaway.dev", "messages")


@dataclass(frozen=True, slots=True)
class Scope:
    """Of what this node takes notice."""

    cluster: str
    node: str
    selector: Selector
    statics: ObjectRef
    pools: ObjectRef
    groups: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What a node said last, when the bus stored that, and since when it says of each address that it holds it (both since 1970)."""

    said: VipNode
    at: float
    since: Mapping[str, float]
    arrived: float  # by our own clock


class Known:
    """The knowledge of one node. `agreed` is the plan in force; it starts as the one that was kept on the disk."""

    def __init__(self, scope: Scope, kept: Agreed | None = None) -> None:
        self.agreed = kept or Agreed()
        self.sequence = 0  # of the plan's message; 0 is "the bus has none"
        self.heard: dict[str, Heard] = {}
        self.wishes_known = False
        self._scope = scope
        self._grounds = frozenset(self.agreed.plan.groups)  # addresses that were found good
        self._store = Store()
        self._replica = Replica(scope.cluster, self._store, partial={ConfigMap.resource})
        self._wishes: dict[str, AddressesWanted] = {}
        self._pools: Pools | None = None
        self._pool_problems: tuple[Problem, ...] = ()
        self._bad: dict[str, Problem] = {}
        self._through = 0
        self._created = ""

    @property
    def awaited(self) -> tuple[Resource, ...]:
        """What the watcher has not yet said to be complete."""
        return tuple(resource for resource in (*FOLLOWED, ConfigMap.resource) if resource not in self._replica.markers)

    @property
    def complete(self) -> bool:
        """Whether all is there that a proposal depends on."""
        return not self.awaited and self.wishes_known

    @property
    def members(self) -> tuple[Member, ...]:
        """The nodes that take part."""
        return members(self._store.all(Node), self._scope.selector)[0]

    @property
    def present(self) -> tuple[Member, ...]:
        """The nodes of the plan as they are now: what befalls a node counts for itself before all have agreed on what follows."""
        planned = self.agreed.plan.members
        if self.awaited:
            return planned
        names = {member.name for member in planned}
        return tuple(member for member in self.members if member.name in names)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with any object or wish, sorted."""
        of_nodes = members(self._store.all(Node), self._scope.selector)[1]
        of_statics = statics(self._static_map, self._own)[1]
        unreadable = self._replica.unreadable.values()
        refused = (*self._refusals(), *self._groundless())
        return tuple(sorted({*of_nodes, *of_statics, *unreadable, *self._pool_problems, *refused, *self._bad.values()}))

    @property
    def lawful(self) -> Agreed:
        """The plan in force, with those of its addresses that this node has ground to hold."""
        plan = self.agreed.plan
        if plan.groups.keys() <= self._grounds:
            return self.agreed
        groups = {address: group for address, group in plan.groups.items() if address in self._grounds}
        return replace(self.agreed, plan=replace(plan, groups=groups))

    @property
    def wanted(self) -> Mapping[Address, str]:
        """The addresses that are to be held, with who wants each; of several the first one."""
        owners = {address: f"{STATIC}/{name}" for address, name in statics(self._static_map, self._own)[0].items()}
        for service in sorted({*self._wishes, *map(_service_of, self.agreed.owners.values())} - {""}):
            for address in self._wished(service):
                owners.setdefault(address, service)
        return dict(sorted(owners.items(), key=lambda item: order(item[0])))

    @property
    def proposal(self) -> Agreed | None:
        """The plan that should be in force instead of the one that is."""
        behind = self.agreed.created == self._created and self.agreed.through > self._through
        if not self.complete or behind:
            return None
        wanted = self.wanted
        plan = revise(self.agreed.plan, wanted.keys(), self.members, self._scope.groups)
        if self.sequence and plan == self.agreed.plan and wanted == self.agreed.owners:
            return None
        return Agreed(plan, self.agreed.revision + 1, wanted, self._created, self._through)

    def take_state(self, messages: Sequence[StoredMessage], created: str) -> tuple[Comparison, ...]:
        """Applies changes of the replica."""
        self._note(messages, created)
        taken = self._replica.change(messages)
        self._read_pools()
        self._found()
        return taken.comparisons

    def replace_state(self, messages: Sequence[StoredMessage], tombstones: Sequence[StoredMessage], created: str) -> None:
        """Makes `messages` the whole replica."""
        self._through = 0
        self._note((*messages, *tombstones), created)
        self._replica.replace(messages, tombstones)
        self._read_pools()
        self._found()

    def take_wishes(self, messages: Iterable[TimedMessage], *, whole: bool, now: float) -> None:
        """Applies what services and nodes say; `whole`: there is nothing else."""
        before = self.agreed
        if whole:
            self._wishes, self._bad, self.heard, self.sequence = {}, {}, {}, 0
            self.wishes_known = True
        for message in messages:
            self._take(message, now)
        if self.agreed != before:
            self._found()

    def _take(self, message: TimedMessage, now: float) -> None:
        try:
            _, _, cluster, service, what = (
                text_of(token) if index > 1 else token for index, token in enumerate(message.subject.split("."))
            )
        except (SubjectError, ValueError):
            return
        if cluster != self._scope.cluster:
            return
        try:
            if service == SERVICE:
                self._take_own(message, what, now)
            elif what == WHAT:
                self._take_wish(message, service)
        except (CodecError, VipError, WishError) as error:
            ref = ObjectRef(_MESSAGES, "", message.subject)
            self._bad[message.subject] = Problem(ref, "BadMessage", str(error))
        else:
            self._bad.pop(message.subject, None)

    def _take_wish(self, message: TimedMessage, service: str) -> None:
        if message.gone:
            self._wishes.pop(service, None)
        else:
            self._wishes[service] = read_wanted(decode(message.headers, message.body))

    def _take_own(self, message: TimedMessage, what: str, now: float) -> None:
        if what == PLAN:
            self.sequence = message.sequence
            if not message.gone:
                self.agreed = loaded(read_vip(VipPlan, decode(message.headers, message.body)))
            return
        if message.gone:
            self.heard.pop(what.removeprefix("node/"), None)
            return
        said = read_vip(VipNode, decode(message.headers, message.body))
        if what != node_what(said.node):
            raise VipError(f"it speaks of node {said.node}")
        before = self.heard[said.node].since if said.node in self.heard else {}
        since = {held.ip: before.get(held.ip, message.time) for held in said.held}
        self.heard[said.node] = Heard(said, message.time, since, now)

    def _note(self, messages: Iterable[StoredMessage], created: str) -> None:
        self._created = created
        self._through = max([self._through, *(message.sequence for message in messages)])

    @property
    def _static_map(self) -> ConfigMap | None:
        return self._store.get(ConfigMap, self._scope.statics.namespace, self._scope.statics.name)

    @property
    def _own(self) -> frozenset[str]:
        return own(self._store.all(Node))

    def _read_pools(self) -> None:
        found = self._store.get(ConfigMap, self._scope.pools.namespace, self._scope.pools.name)
        if found is None:
            self._pool_problems = ()
            if ConfigMap.resource in self._replica.markers:
                self._pools = None
            return
        read = read_pools(found)
        self._pool_problems = read.problems
        self._pools = read.pools if read.pools is not None else self._pools

    def _found(self) -> None:
        """Notes which addresses of the plan are good. Those that are not in the plan any more have to be found so again."""
        planned = self.agreed.plan.groups.keys()
        named = statics(self._static_map, self._own)[0]
        good = {address for address in planned if address in named or self._pooled(address)} if not self.awaited else set()
        self._grounds = frozenset(good | (self._grounds & planned))

    def _pooled(self, address: Address) -> bool:
        return self._pools is not None and self._pools.of(address) is not None

    def _groundless(self) -> Iterable[Problem]:
        ref = ObjectRef(_MESSAGES, "", wanted_subject(self._scope.cluster, SERVICE, PLAN))
        for address in self.agreed.plan.groups:
            if address not in self._grounds:
                owner = self.agreed.owners.get(address) or "nobody"
                fault = (
                    f"{address}, wanted by {owner}, is in no pool and none of the operator's, so it is not held here; add it to one"
                )
                yield Problem(ref, "BadAddress", fault)

    def _wished(self, service: str) -> Iterable[Address]:
        """What a service wants and may have. While it is silent, what it had."""
        wish = self._wishes.get(service)
        if wish is None:
            had = (address for address, owner in self.agreed.owners.items() if owner == service)
            nodes = self._own
            return [address for address in had if unfit(address, nodes) is None and (self._pools is None or self._pooled(address))]
        return [address for address, fault in self._judged(wish) if address is not None and fault is None]

    def _judged(self, wish: AddressesWanted) -> Iterable[tuple[Address | None, str | None]]:
        nodes = self._own
        for one in wish.addresses:
            try:
                address = read_address(one.ip)
            except ValueError:
                yield None, f"{one.ip[:80]!r} is no address"
                continue
            fault = unfit(address, nodes)
            if fault is None and address not in self.agreed.owners and not self._pooled(address):
                fault = "is in no pool; add it to one, or take it from whoever wants it"
            yield address, f"{address} {fault}" if fault else None

    def _refusals(self) -> Iterable[Problem]:
        for service, wish in self._wishes.items():
            ref = ObjectRef(_MESSAGES, "", wanted_subject(self._scope.cluster, service, WHAT))
            for _, fault in self._judged(wish):
                if fault is not None:
                    yield Problem(ref, "BadAddress", fault)


def _service_of(owner: str) -> str:
    return "" if owner.startswith(f"{STATIC}/") else owner
