"""Knowledge: what one balancer knows of the cluster, kept current from the messages of the bus.

It joins the pure parts: messages → replica → tables, and says what became different: the wish for HAProxy, the claims on addresses, what is
wrong. Pools that were good stay in force when the ConfigMap becomes bad or goes; after a start they are those that the leader recorded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from common.contracts.ip import Address, read_address
from common.contracts.objects import ConfigMap, EndpointSlice, Namespace, Node, Service
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.pools import KEY, Pools, read_pools
from common.replica import Comparison, Replica, StoredMessage
from common.store import Change, Store, Table
from haproxy_lb.claims import Claim, ServiceName
from haproxy_lb.derive.backends import backends
from haproxy_lb.derive.claims import claims
from haproxy_lb.derive.classes import Class, belongs
from haproxy_lb.derive.frontends import frontends
from haproxy_lb.derive.in_force import InForce, accepted
from haproxy_lb.derive.indexes import BY_BACKEND, BY_FRONT, BY_NAME, INDEXES
from haproxy_lb.model import Backend, BackendKey, Peer, Wanted

FOLLOWED: Final[tuple[Resource, ...]] = (Service.resource, EndpointSlice.resource, Namespace.resource, Node.resource)


@dataclass(frozen=True, slots=True)
class News:
    """What some messages changed: the wish for HAProxy, what decides on addresses and what Services show, problems."""

    wanted: bool = False
    services: bool = False
    problems: bool = False
    comparisons: tuple[Comparison, ...] = ()


class Knowledge:
    """What is known of one cluster. `pools` and `record` are the ConfigMaps of the operator and of the leader; `node` is the own one, None
    for who serves nothing and looks at all of them; `peers` says which nodes share affinity.
    """

    def __init__(
        self,
        cluster: str,
        ours: Class,
        node: str | None,
        pools: ObjectRef,
        record: ObjectRef,
        *,
        peers: Callable[[Iterable[Node]], tuple[Peer, ...]] = lambda _: (),
    ) -> None:
        self._ours = ours
        self._pools_ref = pools
        self._record_ref = record
        self._store = Store(*INDEXES)
        self._replica = Replica(cluster, self._store, partial={ConfigMap.resource})
        self._claims = Table(self._store, BY_NAME, claims(ours))
        self._frontends = Table(self._store, BY_FRONT, frontends(ours))
        self._backends = Table(self._store, BY_BACKEND, backends(ours, node))
        self._pool_problems: tuple[Problem, ...] = ()
        self._judged = False
        self._peers_of = peers
        self._peers: tuple[Peer, ...] = ()
        self.pools: Pools | None = None

    @property
    def awaited(self) -> tuple[Resource, ...]:
        """What the watcher has not yet said to be complete; empty when all is."""
        return tuple(one for one in (*FOLLOWED, ConfigMap.resource) if one not in self._replica.markers)

    @property
    def wanted(self) -> Wanted:
        """What HAProxy should have."""
        backends = dict(self._backends.values)
        fronts = {key: one for key, one in self._frontends.values.items() if one.backend in backends}
        return Wanted(MappingProxyType(fronts), MappingProxyType(backends), peers=self._peers)

    @property
    def backends(self) -> Mapping[BackendKey, Backend]:
        """Where the ports of Services are answered."""
        return self._backends.values

    @property
    def claims(self) -> Mapping[ServiceName, Claim]:
        """What Services ask for."""
        return self._claims.values

    @property
    def services(self) -> tuple[Service, ...]:
        """The Services that are ours, sorted by name."""
        return tuple(one for one in self._store.all(Service) if belongs(self._ours, one))

    @property
    def pools_text(self) -> str | None:
        """The text of the operator's ConfigMap, if that is what is in force."""
        found = self.configmap(self._pools_ref)
        return found.data[KEY] if found is not None and not self._pool_problems else None

    @property
    def node_addresses(self) -> frozenset[Address]:
        """The addresses of nodes, which no Service may have."""
        return frozenset(address for node in self._store.all(Node) for address in _addresses(node))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with any object, sorted."""
        of_tables = (problem for table in (self._claims, self._frontends, self._backends) for problem in table.problems)
        return tuple(sorted({*of_tables, *self._pool_problems, *self._replica.unreadable.values()}))

    @property
    def counts(self) -> dict[str, int]:
        """How large the tables are."""
        return {
            "services": len(self._claims.values),
            "frontends": len(self._frontends.values),
            "backends": len(self._backends.values),
            "endpoints": sum(len(backend.endpoints) for backend in self._backends.values.values()),
        }

    def service(self, name: ServiceName) -> Service | None:
        """A Service, ours or not."""
        return self._store.get(Service, name.namespace, name.name)

    def configmap(self, ref: ObjectRef) -> ConfigMap | None:
        """One of the two ConfigMaps, if there is such a one."""
        return self._store.get(ConfigMap, ref.namespace, ref.name)

    def uid_of(self, ref: ObjectRef) -> str:
        """The uid of an object; empty if it is not known."""
        found = self._store.find(ref)
        return found.metadata.uid if found is not None else ""

    def replace(self, messages: Sequence[StoredMessage], tombstones: Sequence[StoredMessage]) -> News:
        """Makes `messages` all that there is. Pools in force stay so."""
        kept = self._store.all(InForce)
        unreadable = dict(self._replica.unreadable)
        taken = self._replica.replace(messages, tombstones)
        back = [change for change in map(self._store.apply, kept) if change is not None]
        news = self._take((*taken.changes, *back), taken.comparisons)
        return replace(news, problems=news.problems or unreadable != self._replica.unreadable)

    def change(self, messages: Sequence[StoredMessage]) -> News:
        """Applies `messages`."""
        unreadable = dict(self._replica.unreadable)
        taken = self._replica.change(messages)
        news = self._take(taken.changes, taken.comparisons)
        return replace(news, problems=news.problems or unreadable != self._replica.unreadable)

    def _take(self, changes: Sequence[Change], comparisons: tuple[Comparison, ...]) -> News:
        before, met = self._pool_problems, self._peers
        if any(change.ref.resource == Node.resource for change in changes):
            self._peers = self._peers_of(self._store.all(Node))
        if not self._judged or any(change.ref in {self._pools_ref, self._record_ref} for change in changes):
            changes = (*changes, *self._judge_pools())
        claimed = self._claims.update(changes)
        served = self._frontends.update(changes)
        behind = self._backends.update(changes)
        return News(
            wanted=bool(served.values or behind.values) or self._peers != met,
            services=any(_decides(change) for change in changes),
            problems=claimed.problems or served.problems or behind.problems or self._pool_problems != before,
            comparisons=comparisons,
        )

    def _judge_pools(self) -> Iterator[Change]:
        """Puts the pools of the operator in force, if they are good."""
        self._judged = True
        found = self.configmap(self._pools_ref)
        if found is not None:
            read = read_pools(found)
            self._pool_problems, pools = read.problems, read.pools
        else:
            text = "it does not exist, so what was in force stays so; create it with the pools of addresses"
            self._pool_problems, pools = (Problem(self._pools_ref, "NoPools", text),), None
        if pools is None and self.pools is None:
            pools = self._recorded()
        if pools is not None and pools != self.pools:
            self.pools = pools
            change = self._store.apply(accepted(pools))
            if change is not None:
                yield change

    def _recorded(self) -> Pools | None:
        """The pools that were in force when the leader last wrote them down."""
        found = self.configmap(self._record_ref)
        if found is None or KEY not in found.data:
            return None
        return read_pools(replace(found, data={KEY: found.data[KEY]})).pools


def _decides(change: Change) -> bool:
    """Whether a change may decide on addresses, or on what a Service shows."""
    return change.ref.resource != EndpointSlice.resource


def _addresses(node: Node) -> Iterator[Address]:
    for one in node.status.addresses:
        try:
            yield read_address(one.address)
        except ValueError:
            continue  # a name
