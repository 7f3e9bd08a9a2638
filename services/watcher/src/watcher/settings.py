"""The watcher's knobs."""

from pathlib import Path

from pydantic import Field, model_validator

from common.contracts.objects import MODELS
from common.contracts.refs import ObjectRef
from common.kube.election import LEASES, Terms, lasting
from common.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Where objects come from, and how they are published."""

    manifests: Path | None = Field(None, description="A folder of manifests to follow instead of an API server.")
    kubeconfig: Path | None = Field(
        None, description="How to reach the API server; else KUBECONFIG, the pod's account, ~/.kube/config."
    )
    resources: tuple[str, ...] = Field(
        tuple(sorted(str(model.resource) for model in MODELS)),
        description="What is followed: plural and group, such as services or ingresses.networking.k8s.io.",
    )
    stream_replicas: int = Field(1, ge=1, le=5, description="Copies of each stream: 1, or 3 where there are three servers.")
    marker_interval: float = Field(
        30, gt=0, description="Seconds between two sync markers of a resource, by which readers check themselves."
    )
    lease_namespace: str = Field("seaway", description="Namespace of the Lease by which one of several watchers leads.")
    lease_name: str = Field(
        "seaway-watcher", description="Name of that Lease; empty where this is the only watcher of the bus, so that none is needed."
    )
    lease_duration: int = Field(15, ge=3, description="Seconds after which a leader that is silent has lost its office.")

    @property
    def lease(self) -> ObjectRef | None:
        """The Lease by which one of several watchers leads, if there may be several."""
        return ObjectRef(LEASES, self.lease_namespace, self.lease_name) if self.lease_name else None

    @property
    def lease_terms(self) -> Terms:
        """How long the lease lasts, and what follows from that."""
        return lasting(self.lease_duration)

    @model_validator(mode="after")
    def _one_source(self) -> "Settings":
        if self.manifests is not None and self.kubeconfig is not None:
            raise ValueError("--manifests and --kubeconfig exclude each other: name one source of objects")
        return self
