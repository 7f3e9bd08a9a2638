"""The claims of one Ingress on one host: each path that can be served, and a problem for each that cannot.

Paths are compared with the request's path as it is decoded and normalised, so a claim is normalised the same way. Host names
follow RFC 1123 §2.1, with a first label `*` for "any one label" (networking.k8s.io/v1 IngressRule).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from common.contracts.objects import Ingress
from common.contracts.objects.networking import HTTPIngressPath, IngressBackend
from common.contracts.problems import Problem
from nginx_config_renderer.derive.indexes import ANY_HOST, backend_key, is_name
from nginx_config_renderer.model import BackendKey

EXACT: Final = "Exact"
PREFIX: Final = "Prefix"
PATH_TYPES: Final = (EXACT, PREFIX, "ImplementationSpecific")

_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*", re.ASCII)
_LONGEST_HOST: Final = 253
_LONGEST_PATH: Final = 4096  # bytes; nginx itself takes no longer request line by default than 8 KiB
_ENCODED_SLASH: Final = re.compile("%2[fF]")
_TEXT_SLASH: Final = re.compile("%25(?=2[fF])")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Claim:
    """A path that an Ingress wants to be sent to a backend: a whole path if `exact`, else one by its elements.

    A `fallback` is for what no rule matches; it gives way to every rule.
    """

    ingress: Ingress
    path: str
    exact: bool
    backend: BackendKey
    fallback: bool = False


def is_host(host: str) -> bool:
    """Whether requests can be for `host`."""
    return host == ANY_HOST or (len(host) <= _LONGEST_HOST and _HOST.fullmatch(host) is not None)


def claims(ingress: Ingress, host: str) -> Iterator[Claim | Problem]:
    """What `ingress` claims of `host`, in the order in which it is written."""
    if not is_host(host):
        yield Problem(
            ingress.ref, "BadHost", f"host {host!r} is no name of a host; write one as in RFC 1123, such as shop.example.org"
        )
        return
    for number, rule in enumerate(ingress.spec.rules):
        if rule.host.lower() != host or rule.http is None:
            continue
        for index, path in enumerate(rule.http.paths):
            yield _claim(ingress, f"spec.rules[{number}].http.paths[{index}]", path)
    default = ingress.spec.default_backend
    if default is not None:
        claim = _target(ingress, "spec.defaultBackend", default, "", exact=False)
        yield replace(claim, fallback=True) if isinstance(claim, Claim) else claim


def _claim(ingress: Ingress, field: str, path: HTTPIngressPath) -> Claim | Problem:
    if path.path_type not in PATH_TYPES:
        given = repr(path.path_type) if path.path_type else "missing"
        return Problem(
            ingress.ref, "BadPathType", f"{field}.pathType is {given}; write {', '.join(PATH_TYPES[:-1])} or {PATH_TYPES[-1]}"
        )
    written = path.path or "/"
    reason = _wrong(written)
    if reason:
        return Problem(ingress.ref, "BadPath", f"{field}.path {written[:80]!r} {reason}")
    normal = normalise(written)
    exact = path.path_type == EXACT
    return _target(ingress, f"{field}.backend", path.backend, normal if exact else normal.rstrip("/"), exact=exact)


def _target(ingress: Ingress, field: str, backend: IngressBackend, path: str, *, exact: bool) -> Claim | Problem:
    if backend.resource is not None:
        kind = backend.resource.kind
        return Problem(
            ingress.ref, "ResourceBackend", f"{field}.resource {kind} is not supported; name a Service in {field}.service"
        )
    key = backend_key(ingress.metadata.namespace, backend)
    if key is None:
        return Problem(ingress.ref, "NoBackend", f"{field}.{_fault(backend)}; name the Service and its port")
    return Claim(ingress, path, exact, key)


def _fault(backend: IngressBackend) -> str:
    """What is wrong with a backend that names no port of a Service."""
    name = backend.service.name if backend.service is not None else ""
    port = backend.service.port.name if backend.service is not None else ""
    if name and not is_name(name):
        return f"service.name {name[:80]!r} is no name of a Service"
    if name and port:
        return f"service.port.name {port[:80]!r} is no name of a port"
    return f"service.{'port' if name else 'name'} is missing"


def _wrong(path: str) -> str:
    if not path.startswith("/"):
        return f'does not begin with "/"; write "/{path[:80]}"'
    if len(path.encode(errors="replace")) > _LONGEST_PATH:
        return f"has more than {_LONGEST_PATH} bytes; shorten it"
    if _CONTROL.search(path):
        return "holds a control character; remove it"
    return ""


def normalise(path: str) -> str:
    """`path` as nginx gives `$uri`: escapes decoded, `.` and `..` resolved, slashes merged (ngx_http_parse_complex_uri); but a slash that
    is written %2F stays so, as the program leaves it too (lua/seaway/paths.lua).
    """
    kept: list[str] = []
    decoded = [_decode(element) for element in path.split("/")[1:]]
    for element in decoded:
        if element == "..":
            kept = kept[:-1]
        elif element not in {"", "."}:
            kept.append(element)
    final = "/" if decoded and decoded[-1] in {"", ".", ".."} and kept else ""
    return "/" + "/".join(kept) + final


def _decode(element: str) -> str:
    """An element of a path; what stands for the text "%2F" itself is no slash either."""
    parts = _ENCODED_SLASH.split(_TEXT_SLASH.sub("%2525", element))
    return "%2F".join(unquote_to_bytes(part).decode(errors="surrogateescape") for part in parts)
