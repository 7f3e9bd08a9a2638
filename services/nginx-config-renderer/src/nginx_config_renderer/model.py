"""What the edge must know: for each host its routes and its certificates, for each backend its endpoints.

These tables are all that ever changes while nginx runs; nginx.conf does not depend on them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class BackendKey:
    """A port of a Service. `port` is its name, or its number as text."""

    namespace: str
    service: str
    port: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class PairKey:
    """The Secret of a key pair."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class Policy:
    """How the requests of a route are treated, beyond where they go."""

    force_ssl_redirect: bool = False
    ssl_redirect: bool = True


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """Where requests go, and how they are treated on the way."""

    backend: BackendKey
    policy: Policy = Policy()


@dataclass(frozen=True, slots=True)
class HostRoutes:
    """The routes of one host, paths in decoded and normalised form.

    `exact` holds whole paths. `prefixes` hold paths by their elements, without a final slash: "" is everything, "/a" is `/a` and all
    below. The longest one that fits is taken. A host with `tls` is served by HTTPS: whoever asks by HTTP is sent there.
    """

    exact: tuple[tuple[str, Route], ...] = ()
    prefixes: tuple[tuple[str, Route], ...] = ()
    tls: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a backend answers. `address` is an IPv4 or IPv6 address, without brackets."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Backend:
    """The ready endpoints of a backend, sorted. None of them means 503."""

    endpoints: tuple[Endpoint, ...] = ()
