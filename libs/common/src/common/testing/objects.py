"""Builders of Kubernetes objects, as the API server takes and gives them.

    ingress("shop", rule("shop.example", "/", "web:80"), rule("shop.example", "/cart", "cart:http"))
    service("web", 80)
    endpoint_slice("web", "10.0.0.1", "10.0.0.2", port=8080)

A builder writes what its arguments say and nothing that Kubernetes would fill in. A backend is written `service:port`, the port by number
or name.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from common.testing.authority import Issued

Raw: TypeAlias = dict[str, Any]

NAMESPACE: Final = "default"
CONTROLLER: Final = "k8s.io/ingress-nginx"


def rule(host: str, path: str | None, backend: str, path_type: str = "Prefix") -> Raw:
    """A rule of an Ingress, with one path. An empty `host` is any; a `path` of None is left out."""
    entry = {"pathType": path_type, "backend": _backend(backend)} | ({} if path is None else {"path": path})
    return ({"host": host} if host else {}) | {"http": {"paths": [entry]}}


def ingress(
    name: str,
    *rules: Raw,
    namespace: str = NAMESPACE,
    class_name: str | None = "nginx",
    default: str | None = None,
    annotations: Mapping[str, str] | None = None,
    created: str = "",
) -> Raw:
    """An Ingress of some rules. `created` is its creation time, which only an API server sets."""
    spec: Raw = {"rules": list(rules)} if rules else {}
    if class_name is not None:
        spec["ingressClassName"] = class_name
    if default is not None:
        spec["defaultBackend"] = _backend(default)
    made = _object("networking.k8s.io/v1", "Ingress", name, namespace, annotations=annotations, spec=spec)
    if created:
        made["metadata"]["creationTimestamp"] = created
    return made


def ingress_class(name: str = "nginx", controller: str = CONTROLLER, *, default: bool = False) -> Raw:
    """An IngressClass."""
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else None
    return _object("networking.k8s.io/v1", "IngressClass", name, "", annotations=annotations, spec={"controller": controller})


def service(name: str, *ports: int | str, namespace: str = NAMESPACE) -> Raw:
    """A Service. A port is a number, or `name:number` where a Service has several; `number/UDP` is one of UDP."""
    return _object("v1", "Service", name, namespace, spec={"ports": [_service_port(port) for port in ports or (80,)]})


def endpoint_slice(
    service: str,
    *addresses: str,
    port: int = 8080,
    port_name: str = "",
    namespace: str = NAMESPACE,
    suffix: str = "1",
    not_ready: Sequence[str] = (),
    protocol: str = "TCP",
) -> Raw:
    """Endpoints of a Service; those of `not_ready` besides the ready ones."""
    conditions = [(address, True) for address in addresses] + [(address, False) for address in not_ready]
    made = _object("discovery.k8s.io/v1", "EndpointSlice", f"{service}-{suffix}", namespace)
    made["metadata"]["labels"] = {"kubernetes.io/service-name": service}
    return made | {
        "addressType": "IPv6" if any(":" in address for address, _ in conditions) else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}} for address, ready in conditions],
        "ports": [{"name": port_name, "port": port, "protocol": protocol}],
    }


def config_map(name: str, data: Mapping[str, str], namespace: str = NAMESPACE) -> Raw:
    """A ConfigMap."""
    return _object("v1", "ConfigMap", name, namespace) | {"data": dict(data)}


def tls_secret(name: str, issued: Issued, namespace: str = NAMESPACE) -> Raw:
    """A Secret of type kubernetes.io/tls."""
    data = {key: base64.b64encode(value).decode() for key, value in issued.data.items()}
    return _object("v1", "Secret", name, namespace) | {"type": "kubernetes.io/tls", "data": data}


def opaque_secret(name: str, data: Mapping[str, bytes], namespace: str = NAMESPACE) -> Raw:
    """A Secret of any keys."""
    return _object("v1", "Secret", name, namespace) | {
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()}
    }


def deployment(name: str, image: str, *, replicas: int = 1, port: int = 8080, namespace: str = NAMESPACE) -> Raw:
    """A Deployment of one container, ready when its port answers GET /, found by the label `app`."""
    labels = {"app": name}
    probe = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1}
    container = {"name": name, "image": image, "ports": [{"containerPort": port}], "readinessProbe": probe}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return _object("apps/v1", "Deployment", name, namespace, spec=spec)


def _object(
    api_version: str,
    kind: str,
    name: str,
    namespace: str,
    *,
    annotations: Mapping[str, str] | None = None,
    spec: Raw | None = None,
) -> Raw:
    metadata: Raw = {"name": name} | ({"namespace": namespace} if namespace else {})
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata} | ({} if spec is None else {"spec": spec})


def _backend(text: str) -> Raw:
    service, _, port = text.rpartition(":")
    return {"service": {"name": service, "port": {"number": int(port)} if port.isdigit() else {"name": port}}}


def _service_port(port: int | str) -> Raw:
    name, _, number = str(port).rpartition(":")
    number, _, protocol = number.partition("/")
    return ({"name": name} if name else {}) | {"port": int(number), "protocol": protocol or "TCP"}
