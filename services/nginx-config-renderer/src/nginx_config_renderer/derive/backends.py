"""Backends: the endpoints that each Service port has.

A backend is a function of one Service and of the EndpointSlices that belong to it. The port of the Service is found by name or number, its
endpoints by the port's name (discovery.k8s.io/v1 EndpointPort). An endpoint whose readiness is unknown counts as ready. Where none is
ready, those that are ending and still serve are better than nothing (KEP-1669); as long as one is ready, they get no new requests. A
backend without endpoints stays in the table, since its requests are answered with 503; if that is so because an object is missing, the
Ingresses are told.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence

from common.contracts.objects import EndpointSlice, Ingress, Service
from common.contracts.objects.networking import EndpointConditions, EndpointPort, ServicePort
from common.contracts.problems import Problem
from common.store import Derived, Reads
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.indexes import BY_BACKEND, BY_SERVICE
from nginx_config_renderer.model import Backend, BackendKey, Endpoint


def endpoints(ours: Class) -> Callable[[Reads, BackendKey], Derived[Backend]]:
    """The derivation for one class of Ingresses: a Service that only others name is none of our backends."""

    def derive(view: Reads, key: BackendKey) -> Derived[Backend]:
        users = [ingress for ingress in view.by(BY_BACKEND, key) if belongs(view, ours, ingress) is True]
        return _backend(view, key, users) if users else Derived(None)

    return derive


def _backend(view: Reads, key: BackendKey, users: Sequence[Ingress]) -> Derived[Backend]:
    service = view.get(Service, key.namespace, key.service)
    if service is None:
        return _missing(users, "ServiceNotFound", f"Service {key.namespace}/{key.service} does not exist; create it")
    port = _port(service, key.port)
    if port is None:
        has = ", ".join(_names(service)) or "no ports"
        return _missing(users, "PortNotFound", f"Service {key.namespace}/{key.service} has no port {key.port}; it has {has}")
    slices = view.by(BY_SERVICE, (key.namespace, key.service))
    ready = _endpoints(slices, port.name, _is_ready)
    return Derived(Backend(ready or _endpoints(slices, port.name, _still_serves)))


def _missing(users: Sequence[Ingress], reason: str, message: str) -> Derived[Backend]:
    """No endpoints, and whoever sends requests here is told why."""
    return Derived(Backend(), tuple(Problem(ingress.ref, reason, message) for ingress in users))


def _port(service: Service, wanted: str) -> ServicePort | None:
    named = (port for port in service.spec.ports if port.name == wanted)
    numbered = (port for port in service.spec.ports if str(port.port) == wanted)
    return next(named, None) or next(numbered, None)


def _names(service: Service) -> Iterator[str]:
    for port in service.spec.ports:
        yield f"{port.name} ({port.port})" if port.name else str(port.port)


def _is_ready(conditions: EndpointConditions) -> bool:
    return conditions.ready is not False


def _still_serves(conditions: EndpointConditions) -> bool:
    return conditions.serving is True and conditions.terminating is True


def _endpoints(slices: Iterable[EndpointSlice], name: str, good: Callable[[EndpointConditions], bool]) -> tuple[Endpoint, ...]:
    return tuple(
        sorted(
            {
                Endpoint(address, port)
                for found in slices
                for port in _ports(found, name)
                for endpoint in found.endpoints
                if good(endpoint.conditions)
                for address in endpoint.addresses
                if _is_address(address)
            }
        )
    )


def _ports(found: EndpointSlice, name: str) -> Iterator[int]:
    def fits(port: EndpointPort) -> bool:
        return port.name == name and port.protocol == "TCP"

    yield from (port.port for port in found.ports if port.port is not None and 0 < port.port < 65536 and fits(port))


def _is_address(text: str) -> bool:
    """The API server has checked this, but whoever can publish on the bus has skipped it."""
    try:
        return ipaddress.ip_address(text).is_multicast is False
    except ValueError:
        return False
