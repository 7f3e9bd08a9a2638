"""Projections of what carries traffic: Ingress, IngressClass, Service, EndpointSlice."""

from typing import ClassVar

from common.contracts.objects.meta import LoadBalancedStatus, Part, Projection
from common.contracts.refs import Resource


class ServiceBackendPort(Part):
    """A port of a Service, by name or by number (0: by name)."""

    repeats: ClassVar = True

    name: str = ""
    number: int = 0


class IngressServiceBackend(Part):
    """A Service as a backend."""

    name: str
    port: ServiceBackendPort = ServiceBackendPort()


class TypedLocalObjectReference(Part):
    """An object of the same namespace."""

    api_group: str = ""
    kind: str
    name: str


class IngressBackend(Part):
    """Where requests go: a Service, or another resource."""

    service: IngressServiceBackend | None = None
    resource: TypedLocalObjectReference | None = None


class HTTPIngressPath(Part):
    """A path and its backend. `path_type` is Exact, Prefix or ImplementationSpecific."""

    path: str = ""
    path_type: str = ""
    backend: IngressBackend = IngressBackend()


class HTTPIngressRuleValue(Part):
    """The paths of a rule."""

    paths: tuple[HTTPIngressPath, ...] = ()


class IngressRule(Part):
    """The rule of a host; an empty host is every host."""

    host: str = ""
    http: HTTPIngressRuleValue | None = None


class IngressTLS(Part):
    """Hosts and the Secret with their certificate."""

    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class IngressSpec(Part):
    """networking.k8s.io/v1 IngressSpec."""

    ingress_class_name: str = ""
    default_backend: IngressBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[IngressRule, ...] = ()


class Ingress(Projection):
    """networking.k8s.io/v1 Ingress."""

    resource: ClassVar = Resource("networking.k8s.io", "ingresses")
    api_version: ClassVar = "networking.k8s.io/v1"
    kind: ClassVar = "Ingress"

    spec: IngressSpec = IngressSpec()
    status: LoadBalancedStatus = LoadBalancedStatus()


class IngressClassParameters(Part):
    """The object with the parameters of a class."""

    api_group: str = ""
    kind: str
    name: str
    scope: str = "Cluster"
    namespace: str = ""


class IngressClassSpec(Part):
    """networking.k8s.io/v1 IngressClassSpec."""

    controller: str = ""
    parameters: IngressClassParameters | None = None


class IngressClass(Projection):
    """networking.k8s.io/v1 IngressClass."""

    resource: ClassVar = Resource("networking.k8s.io", "ingressclasses")
    api_version: ClassVar = "networking.k8s.io/v1"
    kind: ClassVar = "IngressClass"
    namespaced: ClassVar = False

    spec: IngressClassSpec = IngressClassSpec()


class ServicePort(Part):
    """A port of a Service. `target_port` is a number or the name of a container port."""

    repeats: ClassVar = True

    name: str = ""
    protocol: str = "TCP"
    app_protocol: str = ""
    port: int
    target_port: int | str = 0
    node_port: int = 0


class ClientIPConfig(Part):
    """How long a client stays with an endpoint, in seconds."""

    timeout_seconds: int = 10800


class SessionAffinityConfig(Part):
    """The settings of session affinity."""

    client_ip: ClientIPConfig | None = None


class ServiceSpec(Part):
    """v1 ServiceSpec."""

    type: str = "ClusterIP"
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] = ()
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    external_name: str = ""
    external_ips: tuple[str, ...] = ()
    external_traffic_policy: str = ""
    internal_traffic_policy: str = ""
    health_check_node_port: int = 0
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    load_balancer_class: str = ""
    load_balancer_ip: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    allocate_load_balancer_node_ports: bool = True
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""


class Service(Projection):
    """v1 Service."""

    resource: ClassVar = Resource("", "services")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Service"

    spec: ServiceSpec = ServiceSpec()
    status: LoadBalancedStatus = LoadBalancedStatus()


class EndpointConditions(Part):
    """What an endpoint is able to do. An unknown `ready` or `serving` counts as true (discovery.k8s.io/v1)."""

    repeats: ClassVar = True

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(Part):
    """The object behind an endpoint."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Endpoint(Part):
    """The addresses of one endpoint."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    target_ref: ObjectReference | None = None


class EndpointPort(Part):
    """A port of all endpoints of a slice. An unset port means all ports, of use to headless consumers only."""

    repeats: ClassVar = True

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None
    app_protocol: str = ""


class EndpointSlice(Projection):
    """discovery.k8s.io/v1 EndpointSlice."""

    resource: ClassVar = Resource("discovery.k8s.io", "endpointslices")
    api_version: ClassVar = "discovery.k8s.io/v1"
    kind: ClassVar = "EndpointSlice"

    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
