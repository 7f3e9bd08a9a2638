"""Render: tables as the entries that nginx's program reads, and nginx.conf from settings alone.

An entry is JSON of a fixed shape; what users wrote stands in it as quoted text and nowhere else. nginx.conf is a function of `Edge`, so no
object of the cluster can change a byte of it.

    host       {"e": {"/path": route, …}, "p": {"/prefix": route, "": route, …}, "t": true}   t: has certificates
    route      "shop/web:80"                                the key of its backend, or
               ["shop/web:80", {"plain": true}]             with what is not as usual
    backend    [["10.0.0.1", 8080], ["[fd00::1]", 8080], …]
    certificate  ["shop/tls-ecdsa", "shop/tls-rsa"]         the key pairs of a host
    pair       {"c": "-----BEGIN CERTIFICATE…", "k": "-----BEGIN PRIVATE KEY…"}
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from nginx_config_renderer.keypairs import KeyPair
from nginx_config_renderer.model import Backend, HostRoutes, PairKey, Route

TEMPLATE: Final = "nginx.conf.j2"
_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("nginx_config_renderer"),
    undefined=StrictUndefined,
    autoescape=False,  # noqa: S701 this is no HTML, and no user text gets here
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What nginx.conf depends on. Paths are absolute, and nginx writes only below `run`; sizes are in MiB. `nginx` is its version.

    An empty `modules` means that nginx finds them by itself.
    """

    http_port: int
    https_port: int
    workers: str
    worker_connections: int
    open_files: int
    worker_shutdown_timeout: int
    state: str
    run: str
    admin_socket: str
    program: str
    certificate: str
    certificate_key: str
    modules: tuple[str, ...]
    journals: tuple[str, ...]
    table_size: int
    ipv6: bool
    nginx: tuple[int, ...] = ()
    strict_trailing_slash: bool = True
    hsts: str = ""
    error_log_level: str = "warn"


def configuration(edge: Edge, program_digest: str) -> str:
    """nginx.conf. It carries a fingerprint of itself and of the program, by which a running nginx says which configuration it has."""
    template = _ENVIRONMENT.get_template(TEMPLATE)
    fingerprint = hashlib.sha256(template.render(edge=edge, fingerprint=program_digest).encode()).hexdigest()
    return template.render(edge=edge, fingerprint=fingerprint)


def fingerprint_of(text: str) -> str:
    """The fingerprint that a configuration carries."""
    return text.split('fingerprint = "', 1)[1].split('"', 1)[0]


def host_key(host: str) -> str:
    """The key of a host: itself, or `*` for any host, since nginx's tables have no empty key."""
    return host or "*"


def host_entry(routes: HostRoutes) -> str:
    """The entry of a host."""
    entry: dict[str, Any] = {
        "e": {path: _route(route) for path, route in routes.exact},
        "p": {path: _route(route) for path, route in routes.prefixes},
    }
    return _json(entry | {"t": True} if routes.tls else entry)


def _route(route: Route) -> Any:
    unusual = {"force": route.policy.force_ssl_redirect, "plain": not route.policy.ssl_redirect}
    options = {name: True for name, given in unusual.items() if given}
    return [str(route.backend), options] if options else str(route.backend)


def backend_entry(backend: Backend) -> str:
    """The entry of a backend. nginx wants an IPv6 address in brackets."""
    return _json([[f"[{one.address}]" if ":" in one.address else one.address, one.port] for one in backend.endpoints])


def certificate_entry(pairs: Sequence[PairKey]) -> str:
    """The entry of a host that has certificates."""
    return _json([str(key) for key in pairs])


def pair_entry(pair: KeyPair) -> str:
    """The entry of a key pair. It is a secret."""
    return _json({"c": pair.chain, "k": pair.key})


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
