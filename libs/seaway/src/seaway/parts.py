"""The parts of a Seaway on one machine: which programs run, with which arguments and settings. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the operator asked for. Exactly one of `manifests` and `kubeconfig` is given."""

    home: Path
    sockets: Path
    manifests: Path | None
    kubeconfig: Path | None
    http: int
    https: int
    ingress_class: str
    controller: str
    workers: int
    nats: int
    cluster: str = "local"


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs are."""

    nats_server: str
    nginx: str
    python: str


@dataclass(frozen=True, slots=True)
class Part:
    """One process. `says` is the line that tells an operator what it does; `ready` is the unix socket of its probes."""

    name: str
    command: tuple[str, ...]
    says: str
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: Path | None = None
