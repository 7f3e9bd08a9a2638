"""Secured: how an Ingress's backends are met where they speak TLS and its annotations say more of it.

What nginx takes from its configuration alone for that (the authorities, how far they may be away, whether the name is said) is a location
of its own, and so is the pool of connections: one that was opened with somebody's certificate, or to somebody who had nothing to prove,
serves nobody else. All that is a matter of few Secrets. Keys and names are data.

Whatever keeps a backend from having to prove itself as asked keeps requests from it: they are answered with 503 until it is mended.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from common.contracts.objects import Ingress, Projection, Secret
from common.contracts.objects.meta import Metadata
from common.contracts.problems import Problem
from common.contracts.refs import Resource
from common.store import Derived, Reads
from nginx_config_renderer.annotations import wishes
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.usual import usual
from nginx_config_renderer.keypairs import AUTHORITIES, CERTIFICATE, KeyPair
from nginx_config_renderer.locations import SecureLocation, secure_location
from nginx_config_renderer.model import IngressKey
from nginx_config_renderer.policy import BackendTLS, Policy, Secured, Special

_NAME: Final = "installed"
_UNTIL: Final = "until then requests are answered with 503"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed(Projection):
    """The locations of that kind which nginx has. No bus carries it."""

    resource: ClassVar = Resource("edge.seaway.dev", "installed")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "Installed"
    namespaced: ClassVar = False

    names: frozenset[str]


def installed(names: frozenset[str]) -> Installed:
    """The object that says so."""
    return Installed(metadata=Metadata(name=_NAME), names=names)


@dataclass(frozen=True, slots=True)
class Bound:
    """A location that an Ingress needs, and the text of the authorities that it names."""

    location: SecureLocation
    authorities: str


def bounds(ours: Class) -> Callable[[Reads, IngressKey], Derived[Bound]]:
    """The derivation of the locations that nginx must have. What is in the way of one is told with the policy."""

    def derive(view: Reads, key: IngressKey) -> Derived[Bound]:
        ingress = view.get(Ingress, key.namespace, key.name)
        if ingress is None or belongs(view, ours, ingress) is not True:
            return Derived(None)
        everybody = usual(view)
        asked = wishes(ingress, everybody)
        found = secured(view, ingress, Special(asked.policy, everybody))[0].secured
        if asked.canary is not None or found is None:
            return Derived(None)
        tls = asked.policy.tls
        pair = view.get(KeyPair, key.namespace, tls.secret[1]) if tls is not None and tls.secret is not None else None
        return Derived(Bound(secure_location(asked.policy, found), pair.authorities if pair is not None else ""))

    return derive


@dataclass(frozen=True, slots=True)
class _Found:
    secured: Secured | None = None
    problem: Problem | None = None


def secured(view: Reads, ingress: Ingress, special: Special) -> tuple[Special, tuple[Problem, ...]]:
    """The policy with what its backends must prove, and what is in the way of that."""
    tls = special.policy.tls
    if special.policy.closed:
        return replace(special, denied=True), ()
    if tls is None or special.policy.scheme not in {"https", "grpcs"}:
        return special, ()
    found = _find(view, ingress, special.policy, tls)
    problems = (found.problem,) if found.problem is not None else ()
    if found.secured is None:
        return replace(special, denied=True), problems
    have = view.get(Installed, "", _NAME)
    ready = have is not None and secure_location(special.policy, found.secured).name in have.names
    return replace(special, secured=found.secured, waits=not ready), problems


def _find(view: Reads, ingress: Ingress, policy: Policy, tls: BackendTLS) -> _Found:
    if tls.unclear:
        return _Found()
    namespace = ingress.metadata.namespace
    if tls.secret is None:
        if tls.verify:
            mend = f"name a Secret with {AUTHORITIES} in proxy-ssl-secret"
            return _Found(
                None, Problem(ingress.ref, "NoAuthorities", f"proxy-ssl-verify is on, and nobody can vouch; {mend}; {_UNTIL}")
            )
        return _Found(Secured(_pool(namespace, policy, tls), "", tls.depth, tls.server_name, tls.name))
    other, name = tls.secret
    if other not in {"", namespace}:
        fault = f"proxy-ssl-secret names a Secret of the namespace {other}; copy it to {namespace}, since nobody may use what is another's"
        return _Found(None, Problem(ingress.ref, "SecretElsewhere", f"{fault}; {_UNTIL}"))
    return _of_secret(view, ingress, name, Secured(_pool(namespace, policy, tls), "", tls.depth, tls.server_name, tls.name), tls)


def _of_secret(view: Reads, ingress: Ingress, name: str, asked: Secured, tls: BackendTLS) -> _Found:
    namespace = ingress.metadata.namespace
    where = f"Secret {namespace}/{name}"
    notice, pair = view.get(Secret, namespace, name), view.get(KeyPair, namespace, name)
    if notice is None:
        return _Found(None, Problem(ingress.ref, "SecretNotFound", f"{where} does not exist; create it; {_UNTIL}"))
    if pair is None:
        return _Found()  # it is not read yet
    if tls.verify and not pair.authority:
        fault = pair.authorities_problem or f"has no {AUTHORITIES}; put the authorities of the backend there, as PEM"
        return _Found(None, Problem(ingress.ref, "NoAuthorities", f"{where}: {fault}; {_UNTIL}"))
    problem = None
    if pair.problem and CERTIFICATE in notice.keys:
        problem = Problem(ingress.ref, "BadCertificate", f"{where}: {pair.problem}. Until then backends are shown no certificate")
    shown = "" if pair.problem else f"{namespace}/{name}"
    return _Found(replace(asked, authority=pair.authority if tls.verify else "", pair=shown), problem)


def _pool(namespace: str, policy: Policy, tls: BackendTLS) -> str:
    """The name of the connections that are alike. It is a hash, so that nobody's text is in it."""
    alike = [namespace, tls.secret and tls.secret[1], tls.verify, tls.depth, tls.name, tls.server_name, policy.scheme]
    return hashlib.sha256(json.dumps(alike).encode()).hexdigest()[:24]
