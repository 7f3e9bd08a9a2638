"""The balancer's knobs."""

import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import Field, field_validator

from common.contracts.ip import read_address
from common.contracts.objects import ConfigMap, Node
from common.contracts.refs import ObjectRef
from common.kube.election import LEASES, Terms, lasting
from common.runtime.settings import ServiceSettings
from haproxy_lb.derive.classes import Class
from haproxy_lb.derive.peers import peers
from haproxy_lb.frame import Frame
from haproxy_lb.model import Peer

_NODE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"


class Settings(ServiceSettings):
    """Which Services are served, of which pools they get addresses, and by which HAProxy."""

    kubeconfig: Path | None = Field(
        None, description="How to reach the API server; else KUBECONFIG, the pod's account, ~/.kube/config."
    )
    node: str = Field(
        default_factory=lambda: os.environ.get("NODE_NAME") or socket.gethostname(),
        pattern=_NODE.pattern,
        description="Name of the node that this balancer is on, whose endpoints come first where a Service wants that.",
    )
    load_balancer_class: str = Field(
        "seaway.dev/haproxy",
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="Services of type LoadBalancer with this loadBalancerClass are ours.",
    )
    default_class: bool = Field(default=False, description="Whether Services that name no loadBalancerClass are ours too.")
    pools_configmap: str = Field(
        "seaway-edge/lb-pools", pattern=_NAME, description="Namespace and name of the ConfigMap with the pools of addresses."
    )
    reservations_configmap: str = Field(
        "seaway-edge/lb-reservations",
        pattern=_NAME,
        description="Namespace and name of the ConfigMap in which the leader records who has which address; it makes it.",
    )
    lease_namespace: str = Field("seaway-edge", description="Namespace of the Lease by which one balancer gives addresses.")
    lease_name: str = Field("seaway-lb", description="Name of that Lease; empty where there is one balancer alone.")
    lease_duration: int = Field(15, ge=3, description="Seconds after which a leader that is silent has lost its office.")

    state: Path = Field(
        Path("/run/seaway/haproxy"),
        description="Directory of HAProxy's configuration and maps, which this program writes and HAProxy reads.",
    )
    sockets: Path = Field(
        Path("/run/seaway/haproxy"),
        description="Directory of HAProxy's sockets, which HAProxy makes and this program talks to; it may be the same one.",
    )
    haproxy: str = Field(
        "haproxy", description="The HAProxy that tests the configuration; the same version as the one that runs it."
    )
    port: int = Field(
        14480,
        ge=1,
        le=65535,
        description="Port on which HAProxy gets the connections that the kernel sends there; closed to others.",
    )
    threads: int = Field(0, ge=0, le=64, description="Threads of HAProxy; 0 is one a processor.")
    max_connections: int = Field(0, ge=0, description="Connections of all Services together; 0 is as many as files may be open.")
    hard_stop_after: int = Field(1800, ge=1, description="Seconds that a HAProxy which was replaced may finish what it has begun.")
    drain_deadline: int = Field(
        3600, ge=1, description="Seconds after which connections to an endpoint that is leaving are cut off."
    )
    leave_after: float = Field(
        1.0,
        ge=0,
        description="Seconds for which it still serves when it ends, while addresses go elsewhere; then the kernel's table is cleared.",
    )
    metric_endpoints: int = Field(
        2000, ge=0, description="Endpoints that have metrics of their own at most; of the others their Service's remain."
    )
    peer_address: str = Field(
        "127.0.0.1", description="Address on which HAProxy tells its like which client stays with which endpoint."
    )
    peer_port: int = Field(14481, ge=1, le=65535, description="Port for that.")
    peer_nodes: str = Field(
        "",
        pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._/-]*(=[A-Za-z0-9._-]*)?)?$",
        description="The nodes whose HAProxy share affinity, by a label such as seaway.dev/edge or role=edge, or * for all; at most 16.",
    )
    peers: tuple[str, ...] = Field(
        (), description="The same without a label: the HAProxy of other nodes, each as NODE=ADDRESS:PORT."
    )

    @field_validator("peers")
    @classmethod
    def _peers_are_some(cls, peers: tuple[str, ...]) -> tuple[str, ...]:
        for text in peers:
            _peer(text)
        return peers

    @property
    def frame(self) -> Frame:
        """What of HAProxy's configuration is settled when it starts."""
        others = tuple(one for one in map(_peer, self.peers) if one.name != self.node)
        return Frame(
            run=str(self.sockets),
            tables=str(self.state),
            port=self.port,
            ipv6=Path("/proc/net/if_inet6").exists(),
            threads=self.threads,
            max_connections=self.max_connections,
            hard_stop_after=self.hard_stop_after,
            name=self.node,
            peer_port=self.peer_port,
            peer_address=self.peer_address,
            peers=tuple(sorted(others, key=lambda one: one.name)),
        )

    @property
    def lease(self) -> ObjectRef | None:
        """The Lease by which one balancer gives addresses, if there may be several."""
        return ObjectRef(LEASES, self.lease_namespace, self.lease_name) if self.lease_name else None

    def peers_among(self, nodes: Iterable[Node]) -> tuple[Peer, ...]:
        """The HAProxy of these nodes that share affinity."""
        return peers(nodes, self.peer_nodes, self.peer_port)

    @property
    def lease_terms(self) -> Terms:
        """How long the lease lasts, and what follows from that."""
        return lasting(self.lease_duration)

    @property
    def ours(self) -> Class:
        """The class of Services that is served."""
        return Class(self.load_balancer_class, self.default_class)

    @property
    def pools(self) -> ObjectRef:
        """The operator's ConfigMap."""
        return _configmap(self.pools_configmap)

    @property
    def reservations(self) -> ObjectRef:
        """The leader's ConfigMap."""
        return _configmap(self.reservations_configmap)


def _peer(text: str) -> Peer:
    name, _, where = text.partition("=")
    address, _, port = where.rpartition(":")
    try:
        made = Peer(name, str(read_address(address.strip("[]"))), int(port))
    except ValueError:
        made = Peer("", "", 0)
    if not _NODE.fullmatch(made.name) or not 0 < made.port < 65536:
        raise ValueError(f"{text!r} is no peer; write NODE=ADDRESS:PORT, such as node-2=10.0.0.2:14481")
    return made


def _configmap(text: str) -> ObjectRef:
    namespace, _, name = text.partition("/")
    return ObjectRef(ConfigMap.resource, namespace, name)
