"""Projections of what runs: Pod and Deployment, without environment, volumes and other places where secrets hide."""

from dataclasses import dataclass, field
from typing import ClassVar

from common.contracts.objects.meta import Condition, Part, Projection, Texts, Word, no_texts
from common.contracts.refs import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPort(Part):
    """A port of a container."""

    name: str = ""
    container_port: int
    host_port: int = 0
    protocol: Word = "TCP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container(Part):
    """A container: what it runs and where it listens."""

    name: str
    image: Word = ""
    ports: tuple[ContainerPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec(Part):
    """v1 PodSpec."""

    node_name: Word = ""
    host_network: bool = False
    service_account_name: Word = ""
    containers: tuple[Container, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus(Part):
    """How a container does."""

    name: str
    ready: bool = False
    restart_count: int = 0
    image: Word = ""
    image_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodIP(Part):
    """An address of a pod."""

    ip: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodStatus(Part):
    """v1 PodStatus."""

    phase: Word = ""
    reason: Word = ""
    message: str = ""
    host_ip: Word = ""
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()
    start_time: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod(Projection):
    """v1 Pod."""

    resource: ClassVar = Resource("", "pods")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Pod"

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector(Part):
    """The labels that select."""

    match_labels: Texts = field(default_factory=no_texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplateSpec(Part):
    """What a Deployment makes."""

    spec: PodSpec = PodSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec(Part):
    """apps/v1 DeploymentSpec."""

    replicas: int = 1
    paused: bool = False
    progress_deadline_seconds: int = 600
    selector: LabelSelector = LabelSelector()
    template: PodTemplateSpec = PodTemplateSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStatus(Part):
    """apps/v1 DeploymentStatus."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment(Projection):
    """apps/v1 Deployment."""

    resource: ClassVar = Resource("apps", "deployments")
    api_version: ClassVar = "apps/v1"
    kind: ClassVar = "Deployment"

    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()
