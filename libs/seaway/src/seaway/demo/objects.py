"""The manifests of the demo, as texts. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import yaml

NAMESPACE: Final = "shop"
HOST: Final = "shop.localhost"


def application(ports: Sequence[int]) -> str:
    """A Service whose endpoints are `ports` of the loopback address, and an Ingress for it."""
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": "nginx"},
            "spec": {"controller": "k8s.io/ingress-nginx"},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        },
        _ingress("web", "/"),
        *(_slice(f"web-{number}", port) for number, port in enumerate(ports, start=1)),
    ]
    return yaml.safe_dump_all(documents, sort_keys=False)


def bad_ingress() -> str:
    """An Ingress whose path does not begin with a slash."""
    return yaml.safe_dump(_ingress("oops", "no-slash"), sort_keys=False)


def _slice(name: str, port: int) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": port}],
    }


def _ingress(name: str, path: str) -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"name": "http"}}}
    rule = {"host": HOST, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"ingressClassName": "nginx", "rules": [rule]},
    }
