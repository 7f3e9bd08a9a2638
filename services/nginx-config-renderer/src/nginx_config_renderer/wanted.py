"""Wanted: what the tables of nginx should hold, kept current from the messages of the bus.

It joins the pure parts: messages → replica → tables → entries, and says which entries became different.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from common.contracts.objects import EndpointSlice, Ingress, IngressClass, Service
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.replica import Comparison, Replica, StoredMessage, Taken
from common.store import Store, Table
from nginx_config_renderer.derive.backends import endpoints
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.derive.hosts import routes
from nginx_config_renderer.derive.indexes import BY_BACKEND, BY_HOST, INDEXES
from nginx_config_renderer.model import Backend, BackendKey, HostRoutes
from nginx_config_renderer.plan import BACKENDS, HOSTS, Entry
from nginx_config_renderer.render import backend_entry, host_entry, host_key

FOLLOWED: Final[tuple[Resource, ...]] = (IngressClass.resource, Ingress.resource, Service.resource, EndpointSlice.resource)


@dataclass(frozen=True, slots=True)
class News:
    """What some messages changed."""

    entries: frozenset[Entry]
    problems: bool
    comparisons: tuple[Comparison, ...] = ()


class Wanted:
    """The wanted entries of one cluster, for one class of Ingresses."""

    def __init__(self, cluster: str, ours: Class) -> None:
        self._store = Store(*INDEXES)
        self._replica = Replica(cluster, self._store)
        self._hosts: Table[str, HostRoutes] = Table(self._store, BY_HOST, routes(ours))
        self._backends: Table[BackendKey, Backend] = Table(self._store, BY_BACKEND, endpoints(ours))
        self._entries: dict[Entry, str] = {}

    @property
    def entries(self) -> Mapping[Entry, str]:
        """Everything that nginx should hold."""
        return MappingProxyType(self._entries)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with any object, sorted."""
        return tuple(sorted({*self._hosts.problems, *self._backends.problems, *self._replica.unreadable.values()}))

    @property
    def counts(self) -> dict[str, int]:
        """How large the tables are."""
        return {
            "hosts": len(self._hosts.values),
            "routes": sum(len(value.exact) + len(value.prefixes) for value in self._hosts.values.values()),
            "backends": len(self._backends.values),
            "endpoints": sum(len(value.endpoints) for value in self._backends.values.values()),
        }

    @property
    def awaited(self) -> tuple[Resource, ...]:
        """The followed resources that the watcher has not yet said to be complete; empty when all are."""
        return tuple(resource for resource in FOLLOWED if resource not in self._replica.markers)

    def replace(self, messages: Sequence[StoredMessage], tombstones: Sequence[StoredMessage]) -> News:
        """Makes `messages` all that there is."""
        before = dict(self._replica.unreadable)
        return self._take(self._replica.replace(messages, tombstones), before)

    def change(self, messages: Sequence[StoredMessage]) -> News:
        """Applies `messages`."""
        before = dict(self._replica.unreadable)
        return self._take(self._replica.change(messages), before)

    def _take(self, taken: Taken, unreadable: Mapping[ObjectRef, Problem]) -> News:
        hosts = self._hosts.update(taken.changes)
        backends = self._backends.update(taken.changes)
        new: dict[Entry, str | None] = {
            (HOSTS, host_key(host)): None if value is None else host_entry(value) for host, value in hosts.values.items()
        }
        new |= {(BACKENDS, str(key)): None if found is None else backend_entry(found) for key, found in backends.values.items()}
        for entry, text in new.items():
            if text is None:
                self._entries.pop(entry, None)
            else:
                self._entries[entry] = text
        problems = hosts.problems or backends.problems or self._replica.unreadable != unreadable
        return News(frozenset(new), problems, taken.comparisons)
