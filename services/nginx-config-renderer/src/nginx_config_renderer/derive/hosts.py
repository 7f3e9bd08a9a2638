"""Hosts: the routes that each host must have.

The routes of a host are a function of the Ingresses that name it, and of their classes. A path that two Ingresses claim belongs to the
older one (creation time, then namespace and name), and the other is told who holds it. Where the stand-by of an Ingress takes over, its
routes lead there, and canaries get nothing. A canary adds a backend to the routes of others, and
has none of its own. A host whose claims are all bad has no routes, and its requests are not for whoever takes any host.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from common.contracts.objects import Ingress
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef
from common.store import Derived, Reads
from nginx_config_renderer.annotations import Wishes, client_auth, wishes
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.emergency import diverted
from nginx_config_renderer.derive.indexes import BY_HOST, BY_TLS_HOST, standby_key
from nginx_config_renderer.derive.paths import Claim, claims, is_host
from nginx_config_renderer.derive.usual import usual
from nginx_config_renderer.model import Canary, HostRoutes, IngressKey, Route
from nginx_config_renderer.policy import Policy

Held: TypeAlias = dict[tuple[bool, str], Claim]
Canaries: TypeAlias = dict[tuple[bool, str], tuple[Canary, ...]]


def routes(ours: Class, switches: ObjectRef) -> Callable[[Reads, str], Derived[HostRoutes]]:
    """The derivation for one class of Ingresses."""

    def derive(view: Reads, host: str) -> Derived[HostRoutes]:
        problems: list[Problem] = []
        mine = _mine(view, ours, host, problems)
        everybody = usual(view)
        asked = {ingress.ref: wishes(ingress, everybody) for ingress in mine}
        found = [claim for ingress in mine for claim in _claims(ingress, host, problems)]
        held = _settle([claim for claim in found if asked[claim.ingress.ref].canary is None], host, problems)
        canaries = _canaries([claim for claim in found if asked[claim.ingress.ref].canary is not None], asked, held, host, problems)
        if not mine or not is_host(host):
            return Derived(None, tuple(problems))
        made = {at: _route(claim, asked[claim.ingress.ref], everybody, canaries) for at, claim in held.items()}
        led = {at: _led(view, switches, claim.ingress, asked[claim.ingress.ref], made[at]) for at, claim in held.items()}
        chosen = sorted((path, exact, route) for (exact, path), route in led.items())
        value = HostRoutes(
            exact=tuple((path, route) for path, exact, route in chosen if exact),
            prefixes=tuple((path, route) for path, exact, route in chosen if not exact),
            tls=_has_tls(view, ours, host),
            guarded=any(client_auth(ingress) is not None for ingress in mine),
        )
        return Derived(value, tuple(problems))

    return derive


def seniority(ingress: Ingress) -> tuple[str, str, str]:
    """The order in which Ingresses get what several claim. One without a creation time is older than all that have one."""
    metadata = ingress.metadata
    return metadata.creation_timestamp, metadata.namespace, metadata.name


def key_of(ingress: Ingress) -> IngressKey:
    """The key of an Ingress."""
    return IngressKey(ingress.metadata.namespace, ingress.metadata.name)


def _mine(view: Reads, ours: Class, host: str, problems: list[Problem]) -> tuple[Ingress, ...]:
    """Our Ingresses that speak of `host`, in the order of seniority."""
    mine = []
    for ingress in sorted(view.by(BY_HOST, host), key=seniority):
        verdict = belongs(view, ours, ingress)
        if isinstance(verdict, Problem):
            problems.append(verdict)
        elif verdict:
            mine.append(ingress)
    return tuple(mine)


def _claims(ingress: Ingress, host: str, problems: list[Problem]) -> Iterable[Claim]:
    for one in claims(ingress, host):
        if isinstance(one, Claim):
            yield one
        else:
            problems.append(one)


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
    owner = key_of(holder.ingress)
    mend = "change the host or the path of one of them"
    return Problem(claim.ingress.ref, "RouteTaken", f"{_where(claim, host)} is already served by the older Ingress {owner}; {mend}")


def _where(claim: Claim, host: str) -> str:
    return (host or "any host") + (claim.path if claim.exact else f"{claim.path}/")


def _canaries(
    found: Sequence[Claim], asked: Mapping[ObjectRef, Wishes], held: Held, host: str, problems: list[Problem]
) -> Canaries:
    """The canaries of each path that somebody holds, the oldest first; adds a problem for each that has nobody to add to."""
    canaries: Canaries = {}
    for claim in found:
        at = claim.exact, claim.path
        if at in held:
            canary = Canary(claim.backend, **(asked[claim.ingress.ref].canary or {}))
            canaries[at] = (*canaries.get(at, ()), canary)
        else:
            mend = "create the Ingress that it is the canary of, with the same host, path and pathType"
            problems.append(Problem(claim.ingress.ref, "CanaryAlone", f"nobody serves {_where(claim, host)}; {mend}"))
    return canaries


def _route(claim: Claim, asked: Wishes, everybody: Policy, canaries: Canaries) -> Route:
    special = asked.policy != everybody
    return Route(claim.backend, key_of(claim.ingress), canaries.get((claim.exact, claim.path), ()), special=special)


def _led(view: Reads, switches: ObjectRef, ingress: Ingress, asked: Wishes, route: Route) -> Route:
    """The route, or the one to the stand-by where that takes over."""
    emergency = asked.emergency
    if emergency is None or diverted(view, switches, ingress, emergency, route.backend) is None:
        return route
    return replace(route, backend=standby_key(route.backend, emergency.service, emergency.port), canaries=())


def _has_tls(view: Reads, ours: Class, host: str) -> bool:
    """Whether any of our Ingresses wants a certificate for `host`, or for the wildcard that it falls under."""
    parent = host.partition(".")[2]
    wanted = view.by(BY_TLS_HOST, host) + (view.by(BY_TLS_HOST, f"*.{parent}") if parent else ())
    return any(belongs(view, ours, ingress) is True for ingress in wanted)
