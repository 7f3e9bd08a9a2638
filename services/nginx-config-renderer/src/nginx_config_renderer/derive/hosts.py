"""Hosts: the routes that each host must have.

The routes of a host are a function of the Ingresses that name it, and of their classes. A path that two Ingresses claim belongs to the
older one (creation time, then namespace and name), and the other is told who holds it. A host whose claims are all bad has no routes,
and its requests are not for whoever takes any host.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from common.contracts.objects import Ingress
from common.contracts.problems import Problem
from common.store import Derived, Reads
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.indexes import BY_HOST, BY_TLS_HOST
from nginx_config_renderer.derive.paths import Claim, claims, is_host
from nginx_config_renderer.model import HostRoutes

Held: TypeAlias = dict[tuple[bool, str], Claim]


def routes(ours: Class) -> Callable[[Reads, str], Derived[HostRoutes]]:
    """The derivation for one class of Ingresses."""

    def derive(view: Reads, host: str) -> Derived[HostRoutes]:
        found: list[Claim | Problem] = []
        served = False
        for ingress in sorted(view.by(BY_HOST, host), key=seniority):
            mine = belongs(view, ours, ingress)
            if isinstance(mine, Problem):
                found.append(mine)
            elif mine:
                served = True
                found += claims(ingress, host)
        problems = [one for one in found if isinstance(one, Problem)]
        held = _settle([one for one in found if isinstance(one, Claim)], host, problems)
        if not served or not is_host(host):
            return Derived(None, tuple(problems))
        return Derived(_value(held, tls=_has_tls(view, ours, host)), tuple(problems))

    return derive


def seniority(ingress: Ingress) -> tuple[str, str, str]:
    """The order in which Ingresses get what several claim. One without a creation time is older than all that have one."""
    metadata = ingress.metadata
    return metadata.creation_timestamp, metadata.namespace, metadata.name


def _settle(found: Sequence[Claim], host: str, problems: list[Problem]) -> Held:
    """Who holds each path, of claims in the order of seniority; adds a problem for each that comes too late."""
    held: Held = {}
    for claim in found:
        if claim.fallback:
            continue
        holder = held.setdefault((claim.exact, claim.path), claim)
        if holder.ingress.ref != claim.ingress.ref:
            problems.append(_taken(claim, holder, host))
    for claim in found:
        if claim.fallback:
            held.setdefault((claim.exact, claim.path), claim)
    return held


def _taken(claim: Claim, holder: Claim, host: str) -> Problem:
    where = (host or "any host") + (claim.path if claim.exact else f"{claim.path}/")
    owner = f"{holder.ingress.metadata.namespace}/{holder.ingress.metadata.name}"
    mend = "change the host or the path of one of them"
    return Problem(claim.ingress.ref, "RouteTaken", f"{where} is already served by the older Ingress {owner}; {mend}")


def _has_tls(view: Reads, ours: Class, host: str) -> bool:
    """Whether any of our Ingresses wants a certificate for `host`, or for the wildcard that it falls under."""
    parent = host.partition(".")[2]
    wanted = view.by(BY_TLS_HOST, host) + (view.by(BY_TLS_HOST, f"*.{parent}") if parent else ())
    return any(belongs(view, ours, ingress) is True for ingress in wanted)


def _value(held: Held, *, tls: bool) -> HostRoutes:
    chosen = sorted((path, exact, claim.route) for (exact, path), claim in held.items())
    return HostRoutes(
        exact=tuple((path, route) for path, exact, route in chosen if exact),
        prefixes=tuple((path, route) for path, exact, route in chosen if not exact),
        tls=tls,
    )
