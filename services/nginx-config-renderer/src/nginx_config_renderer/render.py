"""Render: tables as the entries that nginx's program reads.

An entry is JSON of a fixed shape; what users wrote stands in it as quoted text and nowhere else.

    host         {"e": {"/path": route, …}, "p": {"/prefix": route, "": route, …}, "t": true, "a": true}
                 t: has certificates, a: its clients must show one
    route        ["shop/web:80", "shop/shop"]              backend and Ingress, or
                 ["shop/web:80", "shop/shop", {"p": true, "c": [canary, …]}]   p: has a policy
    canary       {"b": "shop/next:80", "h": "X-Canary", "v": "yes", "re": "^b", "c": "try", "w": 10, "of": 100}
    backend      [["10.0.0.1", 8080], ["[fd00::1]", 8080], …]
    policy       {"at": "@https-…", "read": 10, …}          what is not as usual
    certificate  ["shop/tls-ecdsa", "shop/tls-rsa"]         the key pairs of a host; where its clients must show a certificate,
                 {"p": ["shop/tls"], "v": "on", "d": 1, "ca": "-----BEGIN CERTIFICATE…", "s": true}   s: backends see it
    pair         {"c": "-----BEGIN CERTIFICATE…", "k": "-----BEGIN PRIVATE KEY…"}
"""

import json
from typing import Any

from nginx_config_renderer.keypairs import KeyPair
from nginx_config_renderer.locations import location, secure_location
from nginx_config_renderer.model import Backend, BackendKey, Canary, HostCertificates, HostRoutes, Route
from nginx_config_renderer.policy import USUAL, Affinity, Policy, Secured, Special


def host_key(host: str) -> str:
    """The key of a host: itself, or `*` for any host, since nginx's tables have no empty key."""
    return host or "*"


def host_entry(routes: HostRoutes) -> str:
    """The entry of a host."""
    entry: dict[str, Any] = {
        "e": {path: _route(route) for path, route in routes.exact},
        "p": {path: _route(route) for path, route in routes.prefixes},
    }
    marks = {"t": routes.tls, "a": routes.guarded}
    return _json(entry | {name: True for name, given in marks.items() if given})


def fallback_entry(backend: BackendKey) -> str:
    """The entry of what answers where nobody else does. Its requests are no Ingress's."""
    return _json({"e": {}, "p": {"": [str(backend), "-"]}})


def _route(route: Route) -> Any:
    more: dict[str, Any] = {"p": True} if route.special else {}
    if route.canaries:
        more["c"] = [_canary(canary) for canary in route.canaries]
    where = [str(route.backend), str(route.ingress)]
    return [*where, more] if more else where


def _canary(canary: Canary) -> Any:
    by = {"h": canary.header, "v": canary.header_value, "re": canary.header_pattern, "c": canary.cookie}
    share = {"w": canary.weight, "of": canary.weight_total} if canary.weight else {}
    return {"b": str(canary.backend)} | {name: value for name, value in by.items() if value} | share


def policy_entry(special: Special) -> str:
    """The entry of a policy. What nginx does by its configuration is said where that is not as usual, all else where it is not built in."""
    policy, usual = special.policy, special.usual
    given: dict[str, Any] = {
        "at": location(policy, usual) if special.secured is None else secure_location(policy, special.secured).name,
        "deny": special.denied or special.waits,
        "tls": _secured(special.secured) if special.secured is not None else None,
        "force": policy.force_ssl_redirect,
        "plain": not policy.ssl_redirect,
        "hash": list(policy.hash_by),
        "sticky": _sticky(policy.affinity) if policy.affinity is not None else None,
    }
    if policy.body_size != usual.body_size:
        given["max"] = policy.body_size
    if _timeouts(policy) != _timeouts(usual):
        given["timeouts"] = _timeouts(policy)
    if policy.balance != USUAL.balance:
        given["balance"] = policy.balance
    if (policy.retry_on, policy.retry_tries, policy.retry_within) != (USUAL.retry_on, USUAL.retry_tries, USUAL.retry_within):
        given["retry"] = {"on": sorted(policy.retry_on), "tries": policy.retry_tries, "within": policy.retry_within}
    return _json({name: value for name, value in given.items() if value})


def _secured(secured: Secured) -> dict[str, str]:
    """Never empty, since it says that the location must be one of those."""
    return {"name": secured.name, "pair": secured.pair}


def _timeouts(policy: Policy) -> list[int]:
    return [policy.connect_timeout, policy.send_timeout, policy.read_timeout]


def _sticky(affinity: Affinity) -> Any:
    """`attributes` go behind the value of the cookie as they are; what hangs on the request is left to the program."""
    parts = [f"Path={affinity.path}"] if affinity.path else []
    parts += [f"Domain={affinity.domain}"] if affinity.domain else []
    parts += [f"Max-Age={affinity.max_age}"] if affinity.max_age is not None else []
    given = {
        "name": affinity.name,
        "attributes": "".join(f"; {part}" for part in parts),
        "expires": affinity.expires,
        "same_site": affinity.same_site,
        "conditional": affinity.conditional_none,
        "persistent": affinity.persistent,
        "moves": affinity.change_on_failure,
        "canary": affinity.with_canary,
    }
    return {name: value for name, value in given.items() if value} | (
        {} if affinity.secure is None else {"secure": affinity.secure}
    )


def backend_entry(backend: Backend) -> str:
    """The entry of a backend. nginx wants an IPv6 address in brackets."""
    return _json([[f"[{one.address}]" if ":" in one.address else one.address, one.port] for one in backend.endpoints])


def certificate_entry(found: HostCertificates) -> str:
    """The entry of a host that has certificates, or whose clients must have one."""
    pairs = [str(key) for key in found.pairs]
    if found.clients is None:
        return _json(pairs)
    asked: dict[str, Any] = {"p": pairs, "v": found.clients.verify, "d": found.clients.depth}
    asked |= {"ca": found.authorities} if found.authorities else {}
    return _json(asked | ({"s": True} if found.clients.passed else {}))


def shown_entry(pair: str) -> str:
    """The entry of hosts that have no certificate of their own."""
    return _json([pair])


def pair_entry(pair: KeyPair) -> str:
    """The entry of a key pair. It is a secret."""
    return _json({"c": pair.chain, "k": pair.key})


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
