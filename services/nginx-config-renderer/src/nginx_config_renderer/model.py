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


@dataclass(frozen=True, slots=True)
class ClientAuth:
    """The certificates that clients must show. `secret` names the Secret with the authorities that may vouch for them; None is one that
    cannot be, and nobody gets in. `depth` is how many certificates may stand between; `passed` whether backends see the certificate.
    """

    secret: PairKey | None
    verify: str = "on"  # as nginx has it: on, optional, optional_no_ca
    depth: int = 1
    passed: bool = False


@dataclass(frozen=True, slots=True)
class HostCertificates:
    """The key pairs that a host may show, and what its clients must: `authorities` is the PEM of those that vouch for them."""

    pairs: tuple[PairKey, ...] = ()
    clients: ClientAuth | None = None
    authorities: str = ""


@dataclass(frozen=True, slots=True, order=True)
class IngressKey:
    """An Ingress, as metrics and policies name it."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Emergency:
    """The stand-by Service of an Ingress; without a `port`, with the ports of the Ingress's own backends.

    If `auto` it takes over where a backend has no ready endpoint, and where at least `threshold` percent of the requests of `window`
    seconds fail (0: never for that). What has recovered gets its requests back after `hold` seconds.
    """

    service: str
    port: str = ""
    auto: bool = False
    threshold: int = 50
    window: int = 30
    hold: int = 60


@dataclass(frozen=True, slots=True, order=True)
class Canary:
    """A backend beside the main one of a route, and which requests go to it: those that a header or a cookie sends there, else a share.

    `header` "always" and "never" decide, unless a `header_value` or a `header_pattern` (PCRE) says which values do; so does `cookie`. The
    share is `weight` of `weight_total`.
    """

    backend: BackendKey
    header: str = ""
    header_value: str = ""
    header_pattern: str = ""
    cookie: str = ""
    weight: int = 0
    weight_total: int = 100


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """Where requests go, and which Ingress says so. `special`: its requests are treated by a policy of its own."""

    backend: BackendKey
    ingress: IngressKey
    canaries: tuple[Canary, ...] = ()
    special: bool = False


@dataclass(frozen=True, slots=True)
class HostRoutes:
    """The routes of one host, paths in decoded and normalised form.

    `exact` holds whole paths. `prefixes` hold paths by their elements, without a final slash: "" is everything, "/a" is `/a` and all
    below. The longest one that fits is taken. A host with `tls` is served by HTTPS: whoever asks by HTTP is sent there. Where it is
    `guarded`, clients must show a certificate.
    """

    exact: tuple[tuple[str, Route], ...] = ()
    prefixes: tuple[tuple[str, Route], ...] = ()
    tls: bool = False
    guarded: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a backend answers. `address` is an IPv4 or IPv6 address, without brackets."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Backend:
    """The ready endpoints of a backend, sorted. None of them means 503."""

    endpoints: tuple[Endpoint, ...] = ()
