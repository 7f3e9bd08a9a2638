"""The parts of a Seaway on one machine: which programs run, with which arguments and settings. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from seaway.local import Home
from seaway.nats_conf import RENDERER, WATCHER, inbox

PRIVILEGED: Final = 1024  # ports below it are for root, or for who has CAP_NET_BIND_SERVICE (capabilities(7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancing:
    """What the operator asked for of load balancers.

    `node` is this machine's Node. `interface` gets the addresses; without one, others lead them here. HAProxy has `port` and the next one.
    """

    pools: tuple[str, ...]
    node: str
    default: bool = False
    interface: str | None = None
    port: int = 14480


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator asked for. Exactly one of `manifests` and `kubeconfig` is given.

    `addresses` are what Ingresses show in their status. `https` 0 is none, `workers` 0 is one a processor. `vault` is where keys are kept
    in memory, if there is such a place.
    """

    home: Home
    manifests: Path | None
    kubeconfig: Path | None
    http: int
    https: int
    ingress_class: str
    controller: str
    workers: int
    nats: int
    addresses: tuple[str, ...] = ()
    vault: Path | None = None
    ssl_passthrough: bool = False
    balancing: Balancing | None = None
    cluster: str = "local"
    verbose: bool = False

    @property
    def source(self) -> str:
        """Where objects come from, for people."""
        return f"the manifests in {self.manifests}" if self.manifests is not None else f"the cluster of {self.kubeconfig}"


@dataclass(frozen=True, slots=True)
class User:
    """Whom a program that meets the world runs as, where we are root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Balancers:
    """The programs that balance; HAProxy runs as `user`. `keepalived` is None where nobody is to hold addresses."""

    haproxy: str
    user: User
    keepalived: str | None = None


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs are. `setpriv` runs nginx as `user`; both are None where we are not root. `balancers` are there if asked for."""

    nats_server: str
    nginx: str
    python: str
    setpriv: str | None = None
    user: User | None = None
    balancers: Balancers | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One process. `says` is the line that tells an operator what it does; `probes` is the unix socket of its probes."""

    name: str
    command: tuple[str, ...]
    says: str
    environment: Mapping[str, str] = field(default_factory=dict)
    probes: Path | None = None


def nats_server(options: Options, programs: Programs) -> Part:
    """The bus."""
    command = (programs.nats_server, "--config", str(options.home.bus / "nats.conf"))
    return Part("nats-server", command, f"keeps the bus on 127.0.0.1:{options.nats}, its data in {options.home.bus}")


def watcher(options: Options, programs: Programs) -> Part:
    """The watcher."""
    if options.manifests is not None:
        source = {"MANIFESTS": str(options.manifests)}
    else:
        source = {"KUBECONFIG": str(options.kubeconfig), "LEASE_NAME": ""}  # nobody else writes to this bus
    command = (programs.python, "-m", "watcher")
    return service(options, WATCHER, command, f"follows {options.source}", source)


def renderer(options: Options, programs: Programs) -> Part:
    """The renderer."""
    settings = {
        "STATE": str(options.home.edge),
        "LOG_DIRECTORY": str(options.home.logs),
        **({"VAULT": str(options.vault)} if options.vault is not None else {}),
        **({"MANIFESTS": str(options.manifests)} if options.manifests is not None else {"KUBECONFIG": str(options.kubeconfig)}),
        "LEASE_NAME": "",  # nobody else speaks for this edge
        "PUBLISH_STATUS_ADDRESS": json.dumps(options.addresses),
        "NGINX": programs.nginx,
        "HTTP_PORT": str(options.http),
        "HTTPS_PORT": str(options.https),
        "INGRESS_CLASS": options.ingress_class,
        "CONTROLLER": options.controller,
        "WORKERS": str(options.workers),
        "SSL_PASSTHROUGH": str(options.ssl_passthrough),
    }
    says = f"gives nginx the Ingresses of class {options.ingress_class} ({options.controller})"
    return service(options, RENDERER, (programs.python, "-m", "nginx_config_renderer"), says, settings)


def nginx(options: Options, programs: Programs) -> Part:
    """The edge."""
    home = options.home.edge
    command = (programs.nginx, "-e", "stderr", "-p", str(home / "run"), "-c", str(home / "nginx.conf"), "-g", "daemon off;")
    schemes = {"HTTP": options.http, "HTTPS": options.https}
    ports = " and ".join(f"{scheme} on port {port}" for scheme, port in schemes.items() if port)
    says = f"serves {ports}, its logs in {options.home.logs}"
    return Part("nginx", (*_unprivileged(programs), *command), says)


def service(options: Options, role: str, command: tuple[str, ...], says: str, settings: Mapping[str, str]) -> Part:
    """One of our services, which reaches the bus by its own key."""
    probes = options.home.run / role
    common = {
        "CLUSTER": options.cluster,
        "PROBES": f"unix:{probes}",
        "LOG_LEVEL": "info" if options.verbose else "warning",
        "LOG_FORMAT": "text",
        "SHUTDOWN_DEADLINE": "4",
        "BUS__URL": f"nats://127.0.0.1:{options.nats}",
        "BUS__NKEY_FILE": str(options.home.key(role)),
        "BUS__INBOX": inbox(role),
    }
    environment = {f"SEAWAY_{name}": value for name, value in {**common, **settings}.items()}
    return Part(role, command, says, environment, probes)


def _unprivileged(programs: Programs) -> tuple[str, ...]:
    """How nginx is started as its own user, with the one capability that it may need and no way to another."""
    return confined(programs, programs.user, "+net_bind_service")


def confined(programs: Programs, user: User | None, *capabilities: str) -> tuple[str, ...]:
    """How a program is started as `user`, with these capabilities and no way to others. As we are, where we are not root."""
    if programs.setpriv is None or user is None:
        return ()
    start = (programs.setpriv, f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--no-new-privs", "--pdeathsig=TERM")
    kept = ",".join(("-all", *capabilities))
    return (*start, f"--inh-caps={kept}", f"--ambient-caps={kept}")
