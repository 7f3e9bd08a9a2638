"""The balancer's knobs."""

import os
import socket
from pathlib import Path
from typing import Final

from pydantic import Field

from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from common.kube.election import Terms, lasting
from common.runtime.settings import ServiceSettings
from haproxy_lb.derive.classes import Class

_NAME: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"


class Settings(ServiceSettings):
    """Which Services are served, and of which pools they get addresses."""

    kubeconfig: Path | None = Field(
        None, description="How to reach the API server; else KUBECONFIG, the pod's account, ~/.kube/config."
    )
    node: str = Field(
        default_factory=lambda: os.environ.get("NODE_NAME") or socket.gethostname(),
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


def _configmap(text: str) -> ObjectRef:
    namespace, _, name = text.partition("/")
    return ObjectRef(ConfigMap.resource, namespace, name)
