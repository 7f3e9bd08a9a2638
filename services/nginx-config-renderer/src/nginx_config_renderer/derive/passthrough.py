"""Passthrough: the hosts whose TLS connections go to their Service unopened, by the name that the client says (SNI, RFC 6066 §3).

A host belongs to the oldest Ingress that speaks of it. If that one asks for passthrough, all TLS connections to the host go to the backend
of its root path, and neither its other paths nor other Ingresses are asked, which each of them is told. A younger Ingress cannot take the
connections of a host away from an older one.

A host of ours below a wildcard that is passed on is marked as ours.
"""

from collections.abc import Callable, Sequence

from common.contracts.objects import Ingress, Service
from common.contracts.problems import Problem
from common.store import Derived, Reads
from nginx_config_renderer.annotations import passes
from nginx_config_renderer.derive.backends import find_port, live_endpoints
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.external import awaits_lookup
from nginx_config_renderer.derive.hosts import key_of, seniority
from nginx_config_renderer.derive.indexes import ANY_HOST, BY_HOST, BY_PASSED_HOST
from nginx_config_renderer.derive.paths import Claim, claims, is_host
from nginx_config_renderer.model import BackendKey
from nginx_config_renderer.streams import Passage

_OFF = "the edge passes nothing through; start it with --ssl-passthrough, or remove the annotation"


def passages(ours: Class, *, enabled: bool) -> Callable[[Reads, str], Derived[Passage]]:
    """The derivation for one class of Ingresses. Where it is not enabled, those that ask for it are told."""

    def derive(view: Reads, host: str) -> Derived[Passage]:
        asking = _ours(view, ours, view.by(BY_PASSED_HOST, host))
        if not enabled:
            return Derived(None, tuple(Problem(one.ref, "PassthroughOff", _OFF) for one in asking))
        if asking:
            return _passage(view, host, sorted(_ours(view, ours, view.by(BY_HOST, host)), key=seniority))
        parent = f"*.{host.partition('.')[2]}"
        covered = is_host(host) and _ours(view, ours, view.by(BY_PASSED_HOST, parent)) and _ours(view, ours, view.by(BY_HOST, host))
        return Derived(Passage(None) if covered else None)

    return derive


def _ours(view: Reads, ours: Class, found: Sequence[Ingress]) -> list[Ingress]:
    return [ingress for ingress in found if belongs(view, ours, ingress) is True]


def _passage(view: Reads, host: str, speakers: Sequence[Ingress]) -> Derived[Passage]:
    """The passage of a host of which `speakers` speak, the oldest first; one of them asks for it."""
    holder = speakers[0]
    if host == ANY_HOST:
        mend = "a connection is passed through by the name that the client says; name a host in each rule"
        return Derived(None, tuple(Problem(one.ref, "NoHost", mend) for one in speakers if passes(one)))
    if not is_host(host):
        return Derived(None)
    if not passes(holder):
        fault = f"{host} is already served by the older Ingress {key_of(holder)}, which opens its connections"
        mend = "change the host, or annotate that Ingress"
        return Derived(Passage(None), tuple(Problem(one.ref, "HostTaken", f"{fault}; {mend}") for one in speakers if passes(one)))
    claimed = [claim for claim in claims(holder, host) if isinstance(claim, Claim)]
    roots = sorted((claim for claim in claimed if claim.path in {"", "/"}), key=lambda claim: (claim.fallback, claim.exact))
    if not roots:
        fault = f"{host} is passed through, and no rule says where to: connections have no paths; add the path / to it"
        return Derived(Passage(()), (Problem(holder.ref, "NoRootPath", fault), *_unheard(host, holder, speakers)))
    unused = sorted({claim.path for claim in claimed if claim.path not in {"", "/"}})
    problems = [_ignored(holder, host, path) for path in unused] + list(_unheard(host, holder, speakers))
    return Derived(_leading_to(view, roots[0].backend), tuple(problems))


def _ignored(holder: Ingress, host: str, path: str) -> Problem:
    fault = f"{host} is passed through, so the path {path[:80]} is not looked at by HTTPS; remove it, or the annotation"
    return Problem(holder.ref, "PathIgnored", fault)


def _unheard(host: str, holder: Ingress, speakers: Sequence[Ingress]) -> tuple[Problem, ...]:
    fault = f"{host} is passed through by the older Ingress {key_of(holder)}, so nobody asks here by HTTPS; change one of the hosts"
    return tuple(Problem(one.ref, "HostTaken", fault) for one in speakers if one.ref != holder.ref)


def _leading_to(view: Reads, key: BackendKey) -> Passage:
    """Where connections go; what is missing, the backend itself tells (`derive/backends.py`)."""
    service = view.get(Service, key.namespace, key.service)
    port = find_port(service, key.port, "TCP") if service is not None else None
    if service is None or port is None:
        return Passage(())
    return Passage(live_endpoints(view, service, port), awaits_lookup(view, service))
