"""The questions that the derivations ask of the store, and the keys of the tables."""

import re
from collections.abc import Iterator
from typing import Final

from common.contracts.objects import ConfigMap, EndpointSlice, Ingress, IngressClass, Service
from common.contracts.objects.networking import IngressBackend
from common.store import Index
from nginx_config_renderer.annotations import backend_secret, client_auth, is_secured, passes, standby
from nginx_config_renderer.model import BackendKey, IngressKey, PairKey
from nginx_config_renderer.streams import PROTOCOLS, EntryKey

ANY_HOST: Final = ""
SERVICE_NAME: Final = "kubernetes.io/service-name"  # the label by which a slice belongs to a Service (discovery.k8s.io/v1)
ALL: Final = "all"
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a Service or its port can have that name (RFC 1123 label); the API server has checked it, a bus has not."""
    return _LABEL.fullmatch(text) is not None


def backend_key(namespace: str, backend: IngressBackend) -> BackendKey | None:
    """The Service port that `backend` names, if it names one."""
    service = backend.service
    if service is None or not is_name(service.name):
        return None
    port = service.port.name or str(service.port.number or "")
    return BackendKey(namespace, service.name, port) if is_name(port) else None


def hosts(ingress: Ingress) -> Iterator[str]:
    """The hosts that `ingress` speaks of, in lower case; ANY_HOST for a rule without one and for a default backend without rules."""
    for rule in ingress.spec.rules:
        yield rule.host.lower()
    if not ingress.spec.rules:
        yield ANY_HOST


def backends(ingress: Ingress) -> Iterator[BackendKey]:
    """The Service ports that `ingress` sends requests to, and those that stand by for them."""
    named = standby(ingress)
    for key in own_backends(ingress):
        yield key
        if named is not None:
            yield standby_key(key, *named)


def standby_key(backend: BackendKey, service: str, port: str) -> BackendKey:
    """What stands by for `backend`."""
    return BackendKey(backend.namespace, service, port or backend.port)


def own_backends(ingress: Ingress) -> Iterator[BackendKey]:
    """The Service ports that the rules of `ingress` name."""
    named = [ingress.spec.default_backend] if ingress.spec.default_backend else []
    named += [path.backend for rule in ingress.spec.rules if rule.http for path in rule.http.paths]
    for backend in named:
        key = backend_key(ingress.metadata.namespace, backend)
        if key is not None:
            yield key


def services(found: EndpointSlice) -> Iterator[tuple[str, str]]:
    """The Service that a slice belongs to."""
    name = found.metadata.labels.get(SERVICE_NAME)
    if name:
        yield found.metadata.namespace, name


def used_services(ingress: Ingress) -> Iterator[tuple[str, str]]:
    """The Services of those ports."""
    yield from ((key.namespace, key.service) for key in backends(ingress))


def external_name(service: Service) -> str:
    """The name that a Service leads to, in lower case and without a final dot; empty if it leads to none."""
    return service.spec.external_name.lower().rstrip(".") if service.spec.type == "ExternalName" else ""


def tls_hosts(ingress: Ingress) -> Iterator[str]:
    """The hosts that `ingress` wants a certificate for, in lower case; an entry without hosts means all of the rules. Where clients must
    show one, all of the rules too.
    """
    for entry in ingress.spec.tls:
        yield from (host.lower() for host in entry.hosts) if entry.hosts else hosts(ingress)
    if client_auth(ingress) is not None:
        yield from hosts(ingress)


def tls_secrets(ingress: Ingress, host: str) -> Iterator[PairKey]:
    """The Secrets with which `ingress` wants `host` to be served; an entry without one means the default certificate."""
    for entry in ingress.spec.tls:
        named = {name.lower() for name in entry.hosts} if entry.hosts else set(hosts(ingress))
        if entry.secret_name and host in named:
            yield PairKey(ingress.metadata.namespace, entry.secret_name)


def secrets(ingress: Ingress) -> Iterator[PairKey]:
    """All Secrets that `ingress` names."""
    yield from (PairKey(ingress.metadata.namespace, entry.secret_name) for entry in ingress.spec.tls if entry.secret_name)
    shown = backend_secret(ingress)
    if shown is not None:
        yield PairKey(ingress.metadata.namespace, shown)
    clients = client_auth(ingress)
    if clients is not None and clients.secret is not None:
        yield clients.secret


def entries(found: ConfigMap) -> Iterator[EntryKey]:
    """The keys of a ConfigMap, each as a port of either protocol: which one it is, only the settings know."""
    for key in found.data:
        for protocol in PROTOCOLS:
            yield EntryKey(protocol, found.metadata.namespace, found.metadata.name, key)


def switches(found: ConfigMap) -> Iterator[tuple[str, str, str]]:
    """The keys of a ConfigMap, as switches of Ingresses: which ConfigMap it is, only the settings know."""
    for key in found.data:
        yield found.metadata.namespace, found.metadata.name, key


BY_NAME: Final = Index(Ingress, lambda ingress: (IngressKey(ingress.metadata.namespace, ingress.metadata.name),))
BY_HOST: Final = Index(Ingress, hosts)
BY_SECURED: Final = Index(Ingress, lambda ingress: BY_NAME.keys(ingress) if is_secured(ingress) else ())
BY_TLS_HOST: Final = Index(Ingress, tls_hosts)
BY_SECRET: Final = Index(Ingress, secrets)
BY_BACKEND: Final = Index(Ingress, backends)
BY_USED_SERVICE: Final = Index(Ingress, used_services)
BY_EXTERNAL_NAME: Final = Index(Service, lambda service: filter(None, (external_name(service),)))
BY_SERVICE: Final = Index(EndpointSlice, services)
BY_ENTRY: Final = Index(ConfigMap, entries)
BY_SWITCH: Final = Index(ConfigMap, switches)
BY_PASSED_HOST: Final = Index(Ingress, lambda ingress: hosts(ingress) if passes(ingress) else ())
CLASSES: Final = Index(IngressClass, lambda _: (ALL,))
INDEXES: Final = (
    BY_NAME,
    BY_HOST,
    BY_TLS_HOST,
    BY_SECRET,
    BY_SECURED,
    BY_BACKEND,
    BY_USED_SERVICE,
    BY_EXTERNAL_NAME,
    BY_SERVICE,
    BY_ENTRY,
    BY_SWITCH,
    BY_PASSED_HOST,
    CLASSES,
)
