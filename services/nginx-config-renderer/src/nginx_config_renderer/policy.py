"""Policy: how the requests of an Ingress are treated, beyond where they go.

A policy is complete: what an Ingress does not say is as it is everywhere. Times are in seconds, sizes in bytes.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Scheme: TypeAlias = Literal["http", "https", "grpc", "grpcs"]
Balance: TypeAlias = Literal["round_robin", "least_conn", "ewma"]
Condition: TypeAlias = Literal["error", "timeout", "status", "non_idempotent"]

# Which outcomes of a try lead to another one. "status" is 500, 502, 503 and 504: nginx knows the set from its configuration alone.
USUAL_RETRIES: Final[frozenset[Condition]] = frozenset({"error", "timeout"})


@dataclass(frozen=True, slots=True)
class Affinity:
    """A cookie that keeps a client at one endpoint: for as long as that exists if `persistent`, else until the endpoints change so that
    another one would be its own. `attributes` are those of the cookie (RFC 6265 §4.1), ready to be sent.
    """

    name: str = "INGRESSCOOKIE"
    persistent: bool = False
    path: str = "/"
    domain: str = ""
    max_age: int | None = None
    expires: int | None = None
    same_site: str = ""
    conditional_none: bool = False
    secure: bool | None = None
    change_on_failure: bool = False
    with_canary: bool = True


@dataclass(frozen=True, slots=True)
class BackendTLS:
    """How a backend that speaks TLS is to be met. `secret` has the authorities that may vouch for it (ca.crt) and what we show it (tls.crt,
    tls.key); with `verify` nothing is sent to one that they do not vouch for, as `name`. `server_name`: the name is said in the
    handshake. `unclear`: something of it could not be read, so that nothing is sent at all.
    """

    secret: tuple[str, str] | None = None  # namespace, or none, and name
    verify: bool = False
    depth: int = 1
    name: str = ""
    server_name: bool = True
    unclear: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are treated. `body_size` 0 is no limit; `retry_tries` 0 is one for each endpoint; `retry_within` 0 is for ever.
    `closed`: an Ingress that says who may come in, in a way that is not known, lets nobody in.
    """

    force_ssl_redirect: bool = False
    ssl_redirect: bool = True
    scheme: Scheme = "http"
    body_size: int = 1024 * 1024
    buffering: bool = False
    request_buffering: bool = True
    connect_timeout: int = 5
    send_timeout: int = 60
    read_timeout: int = 60
    retry_on: frozenset[Condition] = USUAL_RETRIES
    retry_tries: int = 3
    retry_within: int = 0
    balance: Balance = "round_robin"
    hash_by: tuple[str, ...] = ()  # text, and names of nginx's variables with a dollar before them
    affinity: Affinity | None = None
    tls: BackendTLS | None = None
    closed: bool = False


USUAL: Final = Policy()


@dataclass(frozen=True, slots=True)
class Secured:
    """How backends are met, with what was found for it. Connections of one `pool` may serve each other's requests. `authority` names the
    bundle of authorities by the hash of its text; `pair` is the key of the pair that we show.
    """

    pool: str
    authority: str = ""
    depth: int = 1
    server_name: bool = True
    name: str = ""
    pair: str = ""


@dataclass(frozen=True, slots=True)
class Special:
    """A policy, and that of everybody, from which it differs. `denied`: no request is sent on. `waits`: nginx cannot do it yet."""

    policy: Policy
    usual: Policy
    secured: Secured | None = None
    denied: bool = False
    waits: bool = False
