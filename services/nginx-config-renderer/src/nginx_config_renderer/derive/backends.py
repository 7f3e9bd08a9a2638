"""Backends: the endpoints that each Service port has.

A backend is a function of one Service and of the EndpointSlices that belong to it. The port of the Service is found by name or number,
its endpoints by the port's name (discovery.k8s.io/v1 EndpointPort). An endpoint whose readiness is unknown counts as ready. Where none is
ready, those that are ending and still serve are better than nothing (KEP-1669); as long as one is ready, they get no new requests. A
Service with `publishNotReadyAddresses` wants all of its endpoints to be asked, ready or not; those that are ending come last there too. A
backend without endpoints stays in the table, since its requests are answered with 503; if that is so because an object is missing, the
Ingresses are told.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from common.contracts.objects import EndpointSlice, Ingress, Service
from common.contracts.objects.networking import EndpointConditions, EndpointPort, ServicePort
from common.contracts.problems import Problem
from common.store import Derived, Reads
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.external import is_external, outside
from nginx_config_renderer.derive.indexes import BY_BACKEND, BY_SERVICE
from nginx_config_renderer.derive.reach import reach_of, refusal
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
    port = find_port(service, key.port, "TCP")
    if port is None:
        return _missing(users, "PortNotFound", no_such_port(service, key.port))
    if is_external(service):
        found = outside(view, service, port)
        return Derived(Backend(found.endpoints), _told(users, found.reason, found.fault) if found.fault else ())
    return Derived(Backend(live_endpoints(view, service, port)))


def live_endpoints(view: Reads, service: Service, port: ServicePort) -> tuple[Endpoint, ...]:
    """Where a port of a Service is served: the ready endpoints, or else those that are ending and still serve."""
    if is_external(service):
        return outside(view, service, port).endpoints
    slices = view.by(BY_SERVICE, (service.metadata.namespace, service.metadata.name))
    loopback = reach_of(view).loopback
    if service.spec.publish_not_ready_addresses:
        return _endpoints(slices, port, _stays, loopback) or _endpoints(slices, port, _whatever, loopback)
    return _endpoints(slices, port, _is_ready, loopback) or _endpoints(slices, port, _still_serves, loopback)


def _missing(users: Sequence[Ingress], reason: str, message: str) -> Derived[Backend]:
    """No endpoints, and whoever sends requests here is told why."""
    return Derived(Backend(), _told(users, reason, message))


def _told(users: Sequence[Ingress], reason: str, message: str) -> tuple[Problem, ...]:
    return tuple(Problem(ingress.ref, reason, message) for ingress in users)


def find_port(service: Service, wanted: str, protocol: str) -> ServicePort | None:
    """The port of that name, else of that number. A Service that leads to a name and has no ports has all of them."""
    if is_external(service) and not service.spec.ports and wanted.isdigit() and 0 < int(wanted) < 65536:
        return ServicePort(port=int(wanted), protocol=protocol)
    ports = [port for port in service.spec.ports if port.protocol == protocol]
    named = (port for port in ports if port.name == wanted)
    numbered = (port for port in ports if str(port.port) == wanted)
    return next(named, None) or next(numbered, None)


def no_such_port(service: Service, wanted: str, protocol: str = "TCP") -> str:
    """The sentence for a port that a Service does not have."""
    has = ", ".join(_names(service)) or "no ports"
    what = "" if protocol == "TCP" else f"{protocol} "
    return f"Service {service.metadata.namespace}/{service.metadata.name} has no {what}port {wanted}; it has {has}"


def _names(service: Service) -> Iterator[str]:
    for port in service.spec.ports:
        number = str(port.port) if port.protocol == "TCP" else f"{port.port}/{port.protocol}"
        yield f"{port.name} ({number})" if port.name else number


def _is_ready(conditions: EndpointConditions) -> bool:
    return conditions.ready is not False


def _still_serves(conditions: EndpointConditions) -> bool:
    return conditions.serving is True and conditions.terminating is True


def _stays(conditions: EndpointConditions) -> bool:
    return conditions.terminating is not True


def _whatever(_: EndpointConditions) -> bool:
    return True


def _endpoints(
    slices: Iterable[EndpointSlice],
    wanted: ServicePort,
    good: Callable[[EndpointConditions], bool],
    loopback: bool,  # noqa: FBT001 whether it may be there
) -> tuple[Endpoint, ...]:
    return tuple(
        sorted(
            {
                Endpoint(address, port)
                for found in slices
                for port in _ports(found, wanted)
                for endpoint in found.endpoints
                if good(endpoint.conditions)
                for address in endpoint.addresses
                if refusal(address, loopback=loopback) is None
            }
        )
    )


def _ports(found: EndpointSlice, wanted: ServicePort) -> Iterator[int]:
    def fits(port: EndpointPort) -> bool:
        return (port.name, port.protocol) == (wanted.name, wanted.protocol)

    yield from (port.port for port in found.ports if port.port is not None and 0 < port.port < 65536 and fits(port))
