"""Certificates: which key pairs a host is served with, and which key pairs are needed at all.

The key pairs of a host are a function of the Ingresses that name it under `spec.tls`, older ones first, and of the Secrets that they name.
A host may have one pair of each algorithm, and the client chooses. A Secret that cannot be used is told to its Ingress, and the host is
served with the default certificate: a warning in a browser is seen at once, and an outage is not mended by refusing connections.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common.contracts.objects import Ingress, Secret
from common.contracts.problems import Problem
from common.store import Derived, Reads
from nginx_config_renderer.annotations import client_auth
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.hosts import seniority
from nginx_config_renderer.derive.indexes import BY_HOST, BY_SECRET, BY_TLS_HOST, tls_secrets
from nginx_config_renderer.derive.paths import is_host
from nginx_config_renderer.keypairs import AUTHORITIES, REVOKED, KeyPair
from nginx_config_renderer.model import ClientAuth, HostCertificates, PairKey


@dataclass(frozen=True, slots=True)
class Need:
    """A Secret that is needed. `version` changes whenever its data may have; empty if there is none."""

    version: str


def host_certificates(ours: Class) -> Callable[[Reads, str], Derived[HostCertificates]]:
    """The derivation of host → key pairs and what clients must show, for one class of Ingresses."""

    def derive(view: Reads, host: str) -> Derived[HostCertificates]:
        chosen: dict[str, PairKey] = {}
        problems: list[Problem] = []
        for ingress in sorted(_ours(view, ours, view.by(BY_TLS_HOST, host)), key=seniority):
            for key in tls_secrets(ingress, host):
                pair, problem = _usable(view, ingress, key, host)
                if problem is not None:
                    problems.append(problem)
                if pair is not None:
                    chosen.setdefault(pair.algorithm, key)
        clients, authorities = _clients(view, ours, host, problems)
        value = HostCertificates(tuple(sorted(chosen.values())), clients, authorities)
        return Derived(value if (value.pairs or clients) and is_host(host) else None, tuple(problems))

    return derive


def pairs(ours: Class) -> Callable[[Reads, PairKey], Derived[KeyPair]]:
    """The derivation of the key pairs that nginx must have."""

    def derive(view: Reads, key: PairKey) -> Derived[KeyPair]:
        found = view.get(KeyPair, key.namespace, key.name)
        needed = any(True for _ in _ours(view, ours, view.by(BY_SECRET, key)))
        return Derived(found if needed and found is not None and not found.problem else None)

    return derive


def needs(ours: Class) -> Callable[[Reads, PairKey], Derived[Need]]:
    """The derivation of the Secrets whose data must be read."""

    def derive(view: Reads, key: PairKey) -> Derived[Need]:
        if not any(True for _ in _ours(view, ours, view.by(BY_SECRET, key))):
            return Derived(None)
        notice = view.get(Secret, key.namespace, key.name)
        return Derived(Need(notice.data_version if notice is not None else ""))

    return derive


def _ours(view: Reads, ours: Class, found: tuple[Ingress, ...]) -> Iterator[Ingress]:
    return (ingress for ingress in found if belongs(view, ours, ingress) is True)


def _clients(view: Reads, ours: Class, host: str, problems: list[Problem]) -> tuple[ClientAuth | None, str]:
    """What the clients of `host` must show, by the oldest Ingress that says so, and the authorities that vouch for them. Without any
    nobody gets in: what guards a host must not go away because of a slip.
    """
    for ingress in sorted(_ours(view, ours, view.by(BY_HOST, host)), key=seniority):
        asked = client_auth(ingress)
        if asked is None:
            continue
        if asked.secret is None:
            return asked, _refused(
                problems, ingress, "auth-tls-secret names no Secret of its namespace; write the name of one", host
            )
        key, where = asked.secret, f"Secret {asked.secret}"
        notice, found = view.get(Secret, key.namespace, key.name), view.get(KeyPair, key.namespace, key.name)
        if notice is None:
            return asked, _refused(problems, ingress, f"{where} does not exist; create it, with the key {AUTHORITIES}", host)
        if REVOKED in notice.keys:
            text = f"{where} has {REVOKED}, and who was revoked is not looked up here; take it out, and those authorities too"
            return asked, _refused(problems, ingress, text, host)
        if found is not None and not found.authorities:
            fault = found.authorities_problem or f"has no {AUTHORITIES}; put the authorities there, as PEM"
            return asked, _refused(problems, ingress, f"{where}: {fault}", host)
        return asked, found.authorities if found is not None else ""
    return None, ""


def _refused(problems: list[Problem], ingress: Ingress, text: str, host: str) -> str:
    problems.append(
        Problem(ingress.ref, "BadClientAuth", f"{text}. Until then requests for {host or 'any host'} are refused (403)")
    )
    return ""


def _usable(view: Reads, ingress: Ingress, key: PairKey, host: str) -> tuple[KeyPair | None, Problem | None]:
    """The pair if it can serve `host`; what is wrong with it, if anything; neither while it is not read yet."""
    where = f"Secret {key.namespace}/{key.name}"
    if view.get(Secret, key.namespace, key.name) is None:
        return None, _problem(ingress, "SecretNotFound", f"{where} does not exist; create it, of type kubernetes.io/tls", host)
    pair = view.get(KeyPair, key.namespace, key.name)
    if pair is None:
        return None, None
    if pair.problem:
        return None, _problem(ingress, "BadCertificate", f"{where}: {pair.problem}", host)
    if host and not pair.covers(host):
        names = ", ".join(pair.names[:5]) or "no host"
        text = f"{where}: its certificate is for {names} and not for {host}; use one that is"
        return None, _problem(ingress, "CertificateNotCovering", text, host)
    if pair.early:
        return pair, Problem(ingress.ref, "CertificateEarly", f"{where}: {pair.early}. Until then clients refuse it")
    return pair, None


def _problem(ingress: Ingress, reason: str, text: str, host: str) -> Problem:
    return Problem(ingress.ref, reason, f"{text}. Until then {host or 'every host'} is served with the default certificate")
