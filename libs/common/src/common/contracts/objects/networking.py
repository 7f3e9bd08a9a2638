"""Projections of what carries traffic: Ingress, IngressClass, Service, EndpointSlice."""

from dataclasses import dataclass, field
from typing import ClassVar

from common.contracts.objects.meta import NO_ADDRESSES, LoadBalancedStatus, Part, Projection, Shared, Texts, Word, no_texts
from common.contracts.refs import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceBackendPort(Shared):
    """A port of a Service, by name or by number (0: by name)."""

    name: Word = ""
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressServiceBackend(Part):
    """A Service as a backend."""

    name: Word
    port: ServiceBackendPort = ServiceBackendPort()


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedLocalObjectReference(Part):
    """An object of the same namespace."""

    api_group: Word = ""
    kind: Word
    name: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressBackend(Part):
    """Where requests go: a Service, or another resource."""

    service: IngressServiceBackend | None = None
    resource: TypedLocalObjectReference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPIngressPath(Part):
    """A path and its backend. `path_type` is Exact, Prefix or ImplementationSpecific."""

    path: Word = ""
    path_type: Word = ""
    backend: IngressBackend = IngressBackend()


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPIngressRuleValue(Part):
    """The paths of a rule."""

    paths: tuple[HTTPIngressPath, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressRule(Part):
    """The rule of a host; an empty host is every host."""

    host: Word = ""
    http: HTTPIngressRuleValue | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressTLS(Part):
    """Hosts and the Secret with their certificate."""

    hosts: tuple[Word, ...] = ()
    secret_name: Word = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressSpec(Part):
    """networking.k8s.io/v1 IngressSpec."""

    ingress_class_name: Word = ""
    default_backend: IngressBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[IngressRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress(Projection):
    """networking.k8s.io/v1 Ingress."""

    resource: ClassVar = Resource("networking.k8s.io", "ingresses")
    api_version: ClassVar = "networking.k8s.io/v1"
    kind: ClassVar = "Ingress"

    spec: IngressSpec = IngressSpec()
    status: LoadBalancedStatus = NO_ADDRESSES


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressClassParameters(Part):
    """The object with the parameters of a class."""

    api_group: Word = ""
    kind: Word
    name: Word
    scope: Word = "Cluster"
    namespace: Word = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressClassSpec(Part):
    """networking.k8s.io/v1 IngressClassSpec."""

    controller: Word = ""
    parameters: IngressClassParameters | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressClass(Projection):
    """networking.k8s.io/v1 IngressClass."""

    resource: ClassVar = Resource("networking.k8s.io", "ingressclasses")
    api_version: ClassVar = "networking.k8s.io/v1"
    kind: ClassVar = "IngressClass"
    namespaced: ClassVar = False

    spec: IngressClassSpec = IngressClassSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort(Shared):
    """A port of a Service. `target_port` is a number or the name of a container port."""

    name: Word = ""
    protocol: Word = "TCP"
    app_protocol: Word = ""
    port: int
    target_port: int | str = 0
    node_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientIPConfig(Part):
    """How long a client stays with an endpoint, in seconds."""

    timeout_seconds: int = 10800


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAffinityConfig(Part):
    """The settings of session affinity."""

    client_ip: ClientIPConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec(Part):
    """v1 ServiceSpec."""

    type: Word = "ClusterIP"
    cluster_ip: Word = ""
    cluster_ips: tuple[Word, ...] = ()
    ip_families: tuple[Word, ...] = ()
    ip_family_policy: Word = ""
    ports: tuple[ServicePort, ...] = ()
    selector: Texts = field(default_factory=no_texts)
    external_name: str = ""
    external_ips: tuple[str, ...] = ()
    external_traffic_policy: Word = ""
    internal_traffic_policy: Word = ""
    health_check_node_port: int = 0
    session_affinity: Word = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    load_balancer_class: Word = ""
    load_balancer_ip: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    allocate_load_balancer_node_ports: bool = True
    publish_not_ready_addresses: bool = False
    traffic_distribution: Word = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Projection):
    """v1 Service."""

    resource: ClassVar = Resource("", "services")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Service"

    spec: ServiceSpec = ServiceSpec()
    status: LoadBalancedStatus = NO_ADDRESSES


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConditions(Shared):
    """What an endpoint is able to do. An unknown `ready` or `serving` counts as true (discovery.k8s.io/v1)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReference(Part):
    """The object behind an endpoint."""

    kind: Word = ""
    namespace: Word = ""
    name: Word = ""
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(Part):
    """The addresses of one endpoint."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    node_name: Word = ""
    zone: Word = ""
    target_ref: ObjectReference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPort(Shared):
    """A port of all endpoints of a slice. An unset port means all ports, of use to headless consumers only."""

    name: Word = ""
    protocol: Word = "TCP"
    port: int | None = None
    app_protocol: Word = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlice(Projection):
    """discovery.k8s.io/v1 EndpointSlice."""

    resource: ClassVar = Resource("discovery.k8s.io", "endpointslices")
    api_version: ClassVar = "discovery.k8s.io/v1"
    kind: ClassVar = "EndpointSlice"

    address_type: Word = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
