"""Fallback: the Service that answers what nobody claims, by a setting of the operator.

It is ingress-nginx's `--default-backend-service`: requests to a host or a path that no Ingress serves go to the first port of that Service,
instead of getting 404. It stands in the tables under keys that no host and no backend of an Ingress can have.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from common.contracts.objects import Projection, Service
from common.contracts.objects.meta import Metadata
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.store import Derived, Index, Reads
from nginx_config_renderer.derive.backends import live_endpoints
from nginx_config_renderer.model import Backend, BackendKey

FALLBACK: Final = "@default"  # in the table of hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback(Projection):
    """The setting, named like the Service. No bus carries it."""

    resource: ClassVar = Resource("edge.seaway.dev", "fallbacks")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "Fallback"


BY_FALLBACK: Final = Index(Fallback, lambda one: (BackendKey(one.metadata.namespace, one.metadata.name, ""),))


def fallback(service: ObjectRef) -> Fallback:
    """The object that says so."""
    return Fallback(metadata=Metadata(namespace=service.namespace, name=service.name))


def fallback_endpoints() -> Callable[[Reads, BackendKey], Derived[Backend]]:
    """The derivation of what answers then."""

    def derive(view: Reads, key: BackendKey) -> Derived[Backend]:
        service = view.get(Service, key.namespace, key.service)
        ref = ObjectRef(Service.resource, key.namespace, key.service)
        if service is None:
            return _nobody(ref, "ServiceNotFound", "--default-backend-service names it, and it does not exist; create it")
        port = next((port for port in service.spec.ports if port.protocol == "TCP"), None)
        if port is None:
            return _nobody(ref, "PortNotFound", "--default-backend-service names it, and it has no TCP port; add one")
        return Derived(Backend(live_endpoints(view, service, port)))

    return derive


def _nobody(ref: ObjectRef, reason: str, message: str) -> Derived[Backend]:
    return Derived(Backend(), (Problem(ref, reason, message),))
