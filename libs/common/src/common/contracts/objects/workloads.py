"""Projections of what runs: Pod and Deployment, without environment, volumes and other places where secrets hide."""

from typing import ClassVar

from common.contracts.objects.meta import Condition, Part, Projection
from common.contracts.refs import Resource


class ContainerPort(Part):
    """A port of a container."""

    name: str = ""
    container_port: int
    host_port: int = 0
    protocol: str = "TCP"


class Container(Part):
    """A container: what it runs and where it listens."""

    name: str
    image: str = ""
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Part):
    """v1 PodSpec."""

    node_name: str = ""
    host_network: bool = False
    service_account_name: str = ""
    containers: tuple[Container, ...] = ()


class ContainerStatus(Part):
    """How a container does."""

    name: str
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = ""


class PodIP(Part):
    """An address of a pod."""

    ip: str = ""


class PodStatus(Part):
    """v1 PodStatus."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    host_ip: str = ""
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()
    start_time: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Projection):
    """v1 Pod."""

    resource: ClassVar = Resource("", "pods")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Pod"

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class LabelSelector(Part):
    """The labels that select."""

    match_labels: dict[str, str] = {}


class PodTemplateSpec(Part):
    """What a Deployment makes."""

    spec: PodSpec = PodSpec()


class DeploymentSpec(Part):
    """apps/v1 DeploymentSpec."""

    replicas: int = 1
    paused: bool = False
    progress_deadline_seconds: int = 600
    selector: LabelSelector = LabelSelector()
    template: PodTemplateSpec = PodTemplateSpec()


class DeploymentStatus(Part):
    """apps/v1 DeploymentStatus."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class Deployment(Projection):
    """apps/v1 Deployment."""

    resource: ClassVar = Resource("apps", "deployments")
    api_version: ClassVar = "apps/v1"
    kind: ClassVar = "Deployment"

    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()
