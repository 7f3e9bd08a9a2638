"""What HAProxy must know: where connections come in, and for each port of a Service its endpoints and how its connections are treated.

These values are all that ever changes while HAProxy runs. A frontend is an address and a port at which clients arrive, a backend is a port
of a Service. Several frontends may lead to one backend, such as those of both families of a Service.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, order=True)
class FrontKey:
    """Where clients arrive: a floating address, without brackets, and the port of the Service."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class BackendKey:
    """A port of a Service, by its number there."""

    namespace: str
    service: str
    port: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a backend answers. A `draining` one gets no new connections; a `backup` only when no other is up."""

    address: str
    port: int
    node: str = ""
    draining: bool = False
    backup: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Check:
    """How an endpoint is asked whether it is well: each `interval` seconds, by a connection, or by a GET of `http_path`."""

    interval: float = 2.0
    rise: int = 2
    fall: int = 3
    http_path: str = ""
    enabled: bool = True


@dataclass(frozen=True, slots=True, order=True)
class Timeouts:
    """Seconds; 0 is not given. `connect` is for a connection to an endpoint, the others are how long a connection may be silent."""

    connect: float = 5.0
    client: float = 0.0
    server: float = 0.0
    tunnel: float = 0.0

    @property
    def idle(self) -> float:
        """How long nothing may come from either side. HAProxy knows one such time for a connection that is carried as it is, and counts
        what comes from one side for both, so of `client` and `server` the shorter one is it (configuration.txt, timeout tunnel).
        """
        return self.tunnel or min(filter(None, (self.client, self.server)), default=USUAL_IDLE)


USUAL_IDLE = 3600.0  # seconds
DEFAULT_CHECK = Check()
DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True, order=True)
class Treatment:
    """How the connections of a backend are treated. The defaults are what nobody has to say."""

    balance: str = "roundrobin"  # or leastconn, source
    affinity: int = 0  # seconds that a client's address stays with its endpoint; 0 is none
    check: Check = DEFAULT_CHECK
    send_proxy: str = ""  # the PROXY protocol towards the endpoints: v1, v2, or none
    max_connections: int = 0  # at once; 0 is any number
    rate: int = 0  # new connections a second; 0 is any number
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    accept_proxy: tuple[str, ...] = ()  # networks whose connections begin with the PROXY protocol


DEFAULT_TREATMENT = Treatment()


@dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """Which backend answers at `key`, and the networks that may ask; none named is all."""

    key: FrontKey
    backend: BackendKey
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Backend:
    """The endpoints of a port, sorted, and its treatment. Without endpoints connections are refused."""

    key: BackendKey
    endpoints: tuple[Endpoint, ...] = ()
    treatment: Treatment = DEFAULT_TREATMENT


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """A HAProxy that shares what it knows of clients' affinity. The name is the same everywhere; `address` without brackets."""

    name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """The whole wish. Each frontend's backend is among the backends. `peers` share affinity, the own HAProxy among them; without any it
    stays with those that it was started for.
    """

    peers: tuple[Peer, ...] = field(default=(), kw_only=True)
    frontends: Mapping[FrontKey, Frontend] = field(default_factory=lambda: MappingProxyType({}))
    backends: Mapping[BackendKey, Backend] = field(default_factory=lambda: MappingProxyType({}))
