"""The questions that the derivations ask of the store, and the keys of the tables."""

from collections.abc import Iterator
from typing import Final

from common.contracts.ip import read_address
from common.contracts.objects import EndpointSlice, Service
from common.contracts.objects.networking import ServicePort
from common.store import Index
from haproxy_lb.claims import ServiceName
from haproxy_lb.model import BackendKey, FrontKey

SERVICE_NAME: Final = "kubernetes.io/service-name"  # the label by which a slice belongs to a Service (discovery.k8s.io/v1)
PROXY: Final = "Proxy"
VIP: Final = "VIP"


def balanced(service: Service) -> Iterator[ServiceName]:
    """The Service, if it is of type LoadBalancer."""
    if service.spec.type == "LoadBalancer":
        yield ServiceName(service.metadata.namespace, service.metadata.name)


def tcp_ports(service: Service) -> Iterator[ServicePort]:
    """The ports that HAProxy can carry."""
    return (port for port in service.spec.ports if port.protocol == "TCP")


def fronts(service: Service) -> Iterator[FrontKey]:
    """Where a Service is answered by us, as its status shows it: addresses with `ipMode: Proxy`, ports without an error."""
    if service.spec.type != "LoadBalancer":
        return
    for shown in service.status.load_balancer.ingress:
        try:
            address = str(read_address(shown.ip))
        except ValueError:
            continue
        served = {port.port for port in shown.ports if port.protocol == "TCP" and not port.error}
        if shown.ip_mode == PROXY:
            yield from (FrontKey(address, port.port) for port in tcp_ports(service) if port.port in served)


def backends(service: Service) -> Iterator[BackendKey]:
    """The ports that HAProxy carries for a Service of type LoadBalancer."""
    for name in balanced(service):
        yield from (BackendKey(name.namespace, name.name, port.port) for port in tcp_ports(service))


def services(found: EndpointSlice) -> Iterator[ServiceName]:
    """The Service that a slice belongs to."""
    name = found.metadata.labels.get(SERVICE_NAME)
    if name:
        yield ServiceName(found.metadata.namespace, name)


BY_NAME: Final = Index(Service, balanced)
BY_FRONT: Final = Index(Service, fronts)
BY_BACKEND: Final = Index(Service, backends)
BY_SERVICE: Final = Index(EndpointSlice, services)
INDEXES: Final = (BY_NAME, BY_FRONT, BY_BACKEND, BY_SERVICE)
