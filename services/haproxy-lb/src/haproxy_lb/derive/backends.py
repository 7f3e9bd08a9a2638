"""Backends: the endpoints of each port that HAProxy carries, and how its connections are treated.

An endpoint whose readiness is unknown counts as ready (discovery.k8s.io/v1). One that ends and still serves keeps its connections and gets
no new ones, unless no other is left: then it is better than nothing (KEP-1669). With `publishNotReadyAddresses` each endpoint is ready.

`externalTrafficPolicy: Local` means the endpoints of the own node; those of other nodes stand by if an annotation says so.

The endpoints of a Service with two families are in slices of both, the same pods twice; clients of either are sent to those of the
Service's first family, since it is we who connect to them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from common.contracts.ip import read_address
from common.contracts.objects import EndpointSlice, Service
from common.contracts.objects.networking import Endpoint as Listed
from common.contracts.objects.networking import EndpointConditions, ServicePort
from common.store import Derived, Reads
from haproxy_lb.annotations import wishes
from haproxy_lb.claims import ServiceName
from haproxy_lb.derive.classes import Class, belongs
from haproxy_lb.derive.indexes import BY_SERVICE, tcp_ports
from haproxy_lb.model import Backend, BackendKey, Endpoint

_AFFINITY = 10800  # seconds, where the Service has no sessionAffinityConfig (v1 ClientIPConfig)


def backends(ours: Class, node: str | None) -> Callable[[Reads, BackendKey], Derived[Backend]]:
    """The derivation for one class of Services, on `node`; None is on any of them."""

    def derive(view: Reads, key: BackendKey) -> Derived[Backend]:
        service = view.get(Service, key.namespace, key.service)
        port = next((port for port in tcp_ports(service) if port.port == key.port), None) if service is not None else None
        if service is None or port is None or not belongs(ours, service):
            return Derived(None)
        wished = wishes(service)
        if wished.kernel:
            return Derived(None)
        slices = view.by(BY_SERVICE, ServiceName(key.namespace, key.service))
        endpoints = _usable(service, _of_first_family(service, slices, port))
        if service.spec.external_traffic_policy == "Local" and node is not None:
            endpoints = tuple(_local(endpoints, node, fallback=wished.fallback))
        treatment = wished.treatment
        if service.spec.session_affinity == "ClientIP":
            treatment = replace(treatment, affinity=_affinity(service))
        return Derived(Backend(key, tuple(sorted(endpoints)), treatment))

    return derive


def _affinity(service: Service) -> int:
    config = service.spec.session_affinity_config
    return config.client_ip.timeout_seconds if config is not None and config.client_ip is not None else _AFFINITY


def _of_first_family(service: Service, slices: Iterable[EndpointSlice], port: ServicePort) -> dict[Endpoint, Listed]:
    """The endpoints of `port` in the first family that has any."""
    slices = tuple(slices)
    for family in (*service.spec.ip_families, "IPv4", "IPv6"):
        found = dict(_endpoints((one for one in slices if one.address_type == family), port))
        if found:
            return found
    return {}


def _endpoints(slices: Iterable[EndpointSlice], wanted: ServicePort) -> Iterator[tuple[Endpoint, Listed]]:
    for found in slices:
        for port in found.ports:
            if port.port is None or port.protocol != "TCP" or port.name != wanted.name or not 0 < port.port < 65536:
                continue
            for listed in found.endpoints:
                for address in filter(_is_address, listed.addresses):
                    yield Endpoint(address, port.port, listed.node_name), listed


def _usable(service: Service, found: dict[Endpoint, Listed]) -> tuple[Endpoint, ...]:
    """Those that are ready, and those that end and still serve, which are drained; if none is ready, these are used."""
    if service.spec.publish_not_ready_addresses:
        return tuple(found)
    ready = [endpoint for endpoint, listed in found.items() if listed.conditions.ready is not False]
    ending = [endpoint for endpoint, listed in found.items() if _ends(listed.conditions)]
    return (*ready, *(replace(endpoint, draining=True) for endpoint in ending)) if ready else tuple(ending)


def _ends(conditions: EndpointConditions) -> bool:
    return conditions.ready is False and conditions.serving is True and conditions.terminating is True


def _local(endpoints: tuple[Endpoint, ...], node: str, *, fallback: bool) -> Iterator[Endpoint]:
    for endpoint in endpoints:
        if endpoint.node == node:
            yield endpoint
        elif fallback:
            yield replace(endpoint, backup=True)


def _is_address(text: str) -> bool:
    try:
        read_address(text)
    except ValueError:
        return False
    return True
