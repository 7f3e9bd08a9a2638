"""Wanted: what the tables of nginx should hold, kept current from the messages of the bus.

It joins the pure parts: messages → replica → tables → entries, and says which entries became different.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from common.contracts.objects import ConfigMap, EndpointSlice, Ingress, IngressClass, Projection, Secret, Service
from common.contracts.objects.meta import Metadata
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.replica import Comparison, Replica, Sighting, StoredMessage, Taken
from common.store import Change, Store, Table
from nginx_config_renderer.derive.backends import endpoints
from nginx_config_renderer.derive.certificates import Need, host_certificates, needs, pairs
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.emergency import Standing, Tripped, standings
from nginx_config_renderer.derive.external import names
from nginx_config_renderer.derive.fallback import BY_FALLBACK, FALLBACK, Fallback, fallback, fallback_endpoints
from nginx_config_renderer.derive.hosts import key_of, routes
from nginx_config_renderer.derive.indexes import (
    BY_BACKEND,
    BY_EXTERNAL_NAME,
    BY_HOST,
    BY_NAME,
    BY_SECRET,
    BY_SECURED,
    BY_TLS_HOST,
    BY_USED_SERVICE,
    INDEXES,
    backends,
    tls_hosts,
)
from nginx_config_renderer.derive.policies import policies
from nginx_config_renderer.derive.reach import EVERYWHERE, Reach, Reaching, reaching
from nginx_config_renderer.derive.secured import Installed, bounds, installed
from nginx_config_renderer.derive.shown import BY_SHOWN, SHOWN, Shown, shown, shown_needs, shown_pairs
from nginx_config_renderer.derive.usual import Usual, accepted
from nginx_config_renderer.entering import Entered, Entering
from nginx_config_renderer.keypairs import KeyPair
from nginx_config_renderer.locations import SecureLocation
from nginx_config_renderer.model import HostRoutes, IngressKey, PairKey
from nginx_config_renderer.plan import BACKENDS, CERTIFICATES, HOSTS, PAIRS, POLICIES, Entry
from nginx_config_renderer.policy import Policy
from nginx_config_renderer.render import (
    backend_entry,
    certificate_entry,
    fallback_entry,
    host_entry,
    host_key,
    pair_entry,
    policy_entry,
    shown_entry,
)
from nginx_config_renderer.resolved import Resolved
from nginx_config_renderer.streams import Entrances
from nginx_config_renderer.tables import Part, Tables

FOLLOWED: Final[tuple[Resource, ...]] = (
    IngressClass.resource,
    Ingress.resource,
    Service.resource,
    EndpointSlice.resource,
    Secret.resource,
)
NOTHING_ENTERED: Final = Entered()
NO_ENTRANCES: Final = Entrances()
NO_CONFIGMAP: Final = ObjectRef(ConfigMap.resource, "", "")
_LOCAL: Final = (Fallback, Installed, KeyPair, Reaching, Resolved, Shown, Tripped, Usual)  # objects that no message carries


@dataclass(frozen=True, slots=True)
class Around:
    """What the settings say of the surroundings: the Service that answers what nobody claims, the Secret with the
    certificate of hosts that have none, the Service whose addresses the Ingresses
    show, and how far requests may go.
    """

    fallback: ObjectRef | None = None
    shown: ObjectRef | None = None
    published: ObjectRef | None = None
    reach: Reach = EVERYWHERE


NOTHING_AROUND: Final = Around()


@dataclass(frozen=True, slots=True)
class News:
    """What some messages changed. `classes`: which Ingresses are ours, or what all of them show, may be different."""

    entries: frozenset[Entry]
    problems: bool
    needs: bool = False
    ingresses: frozenset[ObjectRef] = frozenset()
    classes: bool = False
    options: bool = False
    names: bool = False
    secured: bool = False
    streams: Entered = NOTHING_ENTERED
    comparisons: tuple[Comparison, ...] = ()
    sightings: tuple[Sighting, ...] = ()


class Wanted:
    """The wanted entries of one cluster, for one class of Ingresses."""

    def __init__(
        self,
        cluster: str,
        ours: Class,
        options: ObjectRef = NO_CONFIGMAP,
        entrances: Entrances = NO_ENTRANCES,
        switches: ObjectRef = NO_CONFIGMAP,
        *,
        around: Around = NOTHING_AROUND,
    ) -> None:
        self._ours = ours
        self._around = around
        self._options = options
        self._store = Store(*INDEXES, BY_FALLBACK, BY_SHOWN)
        self._replica = Replica(cluster, self._store, partial={ConfigMap.resource})
        self._refused: tuple[Problem, ...] = ()
        self._hosts = Table(self._store, BY_HOST, routes(ours, switches))
        self._backends = Table(self._store, BY_BACKEND, endpoints(ours))
        self._certificates = Table(self._store, BY_TLS_HOST, host_certificates(ours))
        self._pairs = Table(self._store, BY_SECRET, pairs(ours))
        self._needs = Table(self._store, BY_SECRET, needs(ours))
        self._secured = Table(self._store, BY_SECURED, bounds(ours))
        self._names = Table(self._store, BY_EXTERNAL_NAME, names(ours))
        self._shown = Table(self._store, BY_SHOWN, shown_pairs())
        self._shown_needs = Table(self._store, BY_SHOWN, shown_needs())
        self._fallback = Table(self._store, BY_FALLBACK, fallback_endpoints())
        self._standings = Table(self._store, BY_NAME, standings(ours, switches))
        self._tables = Tables(
            Part(HOSTS, self._hosts, host_key, host_entry),
            Part(BACKENDS, self._backends, str, backend_entry),
            Part(POLICIES, Table(self._store, BY_NAME, policies(ours)), str, policy_entry, lambda special: special.waits),
            Part(CERTIFICATES, self._certificates, host_key, certificate_entry),
            Part(PAIRS, self._pairs, str, pair_entry),
            Part(BACKENDS, self._fallback, str, backend_entry),
            Part(PAIRS, self._shown, lambda _: SHOWN, pair_entry),
        )
        self.entering = Entering(self._store, ours, entrances)
        self._settle(around)

    def _settle(self, around: Around) -> None:
        """Puts what the settings say into the store."""
        known: list[Projection] = [reaching(around.reach)]
        if around.fallback is not None:
            known.append(fallback(around.fallback))
        if around.shown is not None:
            known.append(shown(around.shown))
            self._tables.fix((CERTIFICATES, SHOWN), shown_entry(SHOWN))
        self._take([change for change in map(self._store.apply, known) if change is not None])
        for key in self._fallback.values:
            self._tables.fix((HOSTS, FALLBACK), fallback_entry(key))

    @property
    def entries(self) -> Mapping[Entry, str]:
        """Everything that nginx should hold."""
        return self._tables.entries

    @property
    def needs(self) -> Mapping[PairKey, Need]:
        """The Secrets whose data must be read."""
        return {**self._needs.values, **self._shown_needs.values}

    @property
    def names(self) -> frozenset[str]:
        """The names that must be looked up."""
        return frozenset(self._names.values)

    @property
    def published(self) -> Service | None:
        """The Service whose addresses the Ingresses show, if there is one."""
        ref = self._around.published
        return self._store.get(Service, ref.namespace, ref.name) if ref is not None else None

    @property
    def standings(self) -> Mapping[IngressKey, Standing]:
        """How it stands with the Ingresses that have a stand-by Service."""
        return self._standings.values

    @property
    def all_ingresses(self) -> tuple[Ingress, ...]:
        """Everybody's Ingresses, sorted by name."""
        return self._store.all(Ingress)

    @property
    def ingress_refs(self) -> tuple[ObjectRef, ...]:
        """Their names, in no order."""
        return self._store.refs(Ingress)

    def ingresses(self, refs: Iterable[ObjectRef]) -> Iterator[Ingress]:
        """Those of them that there are."""
        return (found for found in map(self._store.find, refs) if isinstance(found, Ingress))

    def ours(self, ingresses: Iterable[Ingress]) -> Iterator[Ingress]:
        """Those of them that are ours, one by one, since for ten thousand it takes a moment."""
        return (ingress for ingress in ingresses if belongs(self._store, self._ours, ingress) is True)

    @property
    def hosts(self) -> Mapping[str, HostRoutes]:
        """The routes of each host; an empty name is whoever takes any host."""
        return self._hosts.values

    def named(self, hosts: Iterable[str]) -> tuple[tuple[Ingress, bool | Problem], ...]:
        """The Ingresses that name any of these hosts, and whether each is ours (see derive/classes.py)."""
        found = {ingress.ref: ingress for host in hosts for ingress in self._store.by(BY_HOST, host)}
        return tuple((ingress, belongs(self._store, self._ours, ingress)) for _, ingress in sorted(found.items()))

    def knows(self, name: str) -> bool:
        """Whether there is an Ingress `namespace/name`, or a backend `namespace/service:port`."""
        namespace, _, rest = name.partition("/")
        return (BACKENDS, name) in self._tables.entries or self._store.get(Ingress, namespace, rest) is not None

    @property
    def endpoints(self) -> Mapping[str, int]:
        """How many endpoints each backend has that get requests."""
        return {str(key): len(value.endpoints) for key, value in self._backends.values.items()}

    def uid_of(self, ref: ObjectRef) -> str:
        """The uid of an object; empty if it is not known."""
        found = self._store.find(ref)
        return found.metadata.uid if found is not None else ""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with any object, sorted."""
        derived = (*self._tables.problems, *self._standings.problems, *self.entering.problems)
        return tuple(sorted({*derived, *self._replica.unreadable.values(), *self._refused}))

    @property
    def untrusted(self) -> str | None:
        """What of the bus is not taken, in a sentence."""
        problems = sorted(self._replica.unreadable.values())
        if not problems:
            return None
        others = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        return f"a message on the bus is not taken: {problems[0].message[:500]}{others}; find out who wrote it"

    @property
    def counts(self) -> dict[str, int]:
        """How large the tables are."""
        return {
            "hosts": len(self._hosts.values),
            "routes": sum(len(value.exact) + len(value.prefixes) for value in self._hosts.values.values()),
            "backends": len(self._backends.values),
            "endpoints": sum(len(value.endpoints) for value in self._backends.values.values()),
            "certificates": len(self._certificates.values),
        }

    @property
    def awaited(self) -> tuple[Resource, ...]:
        """The followed resources that the watcher has not yet said to be complete; empty when all are."""
        return tuple(resource for resource in (*FOLLOWED, ConfigMap.resource) if resource not in self._replica.markers)

    @property
    def options(self) -> ConfigMap | None:
        """The operator's ConfigMap, if there is one."""
        return self._store.get(ConfigMap, self._options.namespace, self._options.name)

    @property
    def options_known(self) -> bool:
        """Whether it is known that there is one, or none."""
        return ConfigMap.resource in self._replica.markers or self.options is not None

    @property
    def streams_known(self) -> bool:
        """Whether it is known which ports and hosts there are, beside HTTP."""
        return not self.awaited

    def accept(self, usual: Policy | None, refused: tuple[Problem, ...]) -> News:
        """Takes what became of the ConfigMap: the policy of everybody, unless that stays as it is, and what is wrong."""
        self._refused, before = refused, self._refused
        change = self._store.apply(accepted(usual)) if usual is not None else None
        news = self._take((change,) if change is not None else ())
        return replace(news, problems=news.problems or refused != before)

    def replace(self, messages: Sequence[StoredMessage], tombstones: Sequence[StoredMessage]) -> News:
        """Makes `messages` all that there is. What no message carries stays."""
        unreadable = dict(self._replica.unreadable)
        kept = [local for model in _LOCAL for local in self._store.all(model)]
        taken = self._replica.replace(messages, tombstones)
        back = [change for change in map(self._store.apply, kept) if change is not None]
        return self._read(replace(taken, changes=(*taken.changes, *back)), unreadable)

    def change(self, messages: Sequence[StoredMessage]) -> News:
        """Applies `messages`."""
        unreadable = dict(self._replica.unreadable)
        return self._read(self._replica.change(messages), unreadable)

    def learn(self, pair: KeyPair) -> News:
        """Takes a key pair. All that depends on it is told, since it was unknown before."""
        change = self._store.apply(pair)
        news = self._take((change,) if change is not None else ())
        key = PairKey(pair.metadata.namespace, pair.metadata.name)
        hosts = {host for ingress in self._store.by(BY_SECRET, key) for host in tls_hosts(ingress)}
        users = ((POLICIES, str(key_of(ingress))) for ingress in self._store.by(BY_SECRET, key))
        known = {*self._pairs_of(key), *((CERTIFICATES, host_key(host)) for host in hosts), *users}
        return replace(news, entries=news.entries | known)

    def _pairs_of(self, key: PairKey) -> tuple[Entry, ...]:
        """The entries of a key pair: by its name, and as the one of hosts that have none."""
        return ((PAIRS, str(key)), *(((PAIRS, SHOWN),) if key in self._shown_needs.values else ()))

    @property
    def unread(self) -> tuple[PairKey, ...]:
        """The Secrets that are needed and not read yet."""
        return tuple(key for key in self.needs if self._store.get(KeyPair, key.namespace, key.name) is None)

    @property
    def undecided(self) -> frozenset[IngressKey]:
        """The Ingresses that name such a Secret: nobody knows yet what is wrong with it."""
        return frozenset(key_of(ingress) for key in self.unread for ingress in self._store.by(BY_SECRET, key))

    @property
    def unknown(self) -> frozenset[Entry]:
        """Entries that depend on Secrets which are not read yet, or on names which were not looked up yet: whatever nginx has there is
        better than nothing.
        """
        unread = self.unread
        users = [ingress for key in unread for ingress in self._store.by(BY_SECRET, key)]
        hosts = {host for ingress in users for host in tls_hosts(ingress)}
        treated = ((POLICIES, str(key_of(ingress))) for ingress in users)
        resolved = {name: self._store.get(Resolved, "", name) for name in self._names.values}
        unresolved = [name for name, found in resolved.items() if found is None or not found.known]
        leading = (entry for name in unresolved for entry in self._leading_to(name))
        certificates = ((CERTIFICATES, host_key(host)) for host in hosts)
        return frozenset({*(entry for key in unread for entry in self._pairs_of(key)), *certificates, *treated, *leading})

    def resolve(self, found: Resolved) -> News:
        """Takes what a name means. All that depends on it is told, since it was unknown before, unless it still is."""
        change = self._store.apply(found)
        news = self._take((change,) if change is not None else ())
        return replace(news, entries=news.entries | self._leading_to(found.metadata.name)) if found.known else news

    def unname(self, name: str) -> News:
        """Drops a name."""
        change = self._store.delete(ObjectRef(Resolved.resource, "", name))
        return self._take((change,) if change is not None else ())

    def _leading_to(self, name: str) -> frozenset[Entry]:
        """The backends of Services that lead to a name."""
        services = {(one.metadata.namespace, one.metadata.name) for one in self._store.by(BY_EXTERNAL_NAME, name)}
        users = (ingress for service in services for ingress in self._store.by(BY_USED_SERVICE, service))
        keys = {key for ingress in users for key in backends(ingress) if (key.namespace, key.service) in services}
        return frozenset((BACKENDS, str(key)) for key in keys)

    @property
    def secured(self) -> tuple[SecureLocation, ...]:
        """The locations that nginx must have for backends that must prove who they are."""
        return tuple(sorted({bound.location for bound in self._secured.values.values()}, key=lambda one: one.name))

    @property
    def authorities(self) -> dict[str, str]:
        """The bundles of authorities that they use, by name."""
        return {bound.location.authority: bound.authorities for bound in self._secured.values.values() if bound.location.authority}

    def install(self, names: frozenset[str]) -> News:
        """Takes which of those locations nginx has."""
        change = self._store.apply(installed(names))
        return self._take((change,) if change is not None else ())

    def trip(self, key: IngressKey, reasons: Mapping[str, str]) -> News:
        """Takes what this edge found out about an Ingress: backend → why it gets no requests."""
        ref = ObjectRef(Tripped.resource, key.namespace, key.name)
        metadata = Metadata(namespace=key.namespace, name=key.name)
        tripped = Tripped(metadata=metadata, reasons=dict(reasons)) if reasons else None
        change = self._store.apply(tripped) if tripped is not None else self._store.delete(ref)
        return self._take((change,) if change is not None else ())

    def forget(self, key: PairKey) -> News:
        """Drops a key pair."""
        change = self._store.delete(ObjectRef(KeyPair.resource, key.namespace, key.name))
        return self._take((change,) if change is not None else ())

    def _read(self, taken: Taken, unreadable: Mapping[ObjectRef, Problem]) -> News:
        """What the replica took; `unreadable` is what it could not read before."""
        news = self._take(taken.changes)
        problems = news.problems or self._replica.unreadable != unreadable
        return replace(news, problems=problems, comparisons=taken.comparisons, sightings=taken.sightings)

    def _take(self, changes: Sequence[Change]) -> News:
        new, problems = self._tables.update(changes)
        entered = self.entering.update(changes)
        shown = self._around.published
        ingresses = frozenset(change.ref for change in changes if change.ref.resource == Ingress.resource)
        classes = any(change.ref.resource == IngressClass.resource or change.ref == shown for change in changes)
        options = any(change.ref == self._options for change in changes)
        needs, named = (
            bool({**self._needs.update(changes).values, **self._shown_needs.update(changes).values}),
            bool(self._names.update(changes).values),
        )
        secured = bool(self._secured.update(changes).values)
        problems |= self._standings.update(changes).problems
        return News(new, problems or entered.problems, needs, ingresses, classes, options, named, secured, entered)
