"""Projections of the cluster itself: Node, Namespace, ConfigMap and the notice of a Secret."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from common.contracts.objects.meta import Condition, Part, Projection
from common.contracts.refs import Resource


class Taint(Part):
    """A taint of a node."""

    key: str
    value: str = ""
    effect: str


class NodeSpec(Part):
    """v1 NodeSpec."""

    pod_cidr: str = ""
    pod_cidrs: tuple[str, ...] = ()
    provider_id: str = ""
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False


class NodeAddress(Part):
    """An address of a node."""

    type: str
    address: str


class NodeInfo(Part):
    """What a node runs."""

    architecture: str = ""
    kernel_version: str = ""
    kubelet_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""


class NodeStatus(Part):
    """v1 NodeStatus without images and heartbeats."""

    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    node_info: NodeInfo = NodeInfo()


class Node(Projection):
    """v1 Node."""

    resource: ClassVar = Resource("", "nodes")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Node"
    namespaced: ClassVar = False

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class NamespaceStatus(Part):
    """v1 NamespaceStatus."""

    phase: str = ""


class Namespace(Projection):
    """v1 Namespace."""

    resource: ClassVar = Resource("", "namespaces")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Namespace"
    namespaced: ClassVar = False

    status: NamespaceStatus = NamespaceStatus()


class ConfigMap(Projection):
    """v1 ConfigMap. `binary_data` is base64, as in Kubernetes."""

    resource: ClassVar = Resource("", "configmaps")
    api_version: ClassVar = "v1"
    kind: ClassVar = "ConfigMap"

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool = False


class Secret(Projection):
    """The notice of a v1 Secret: that it is there, its type and the names of its keys; never its data.

    It carries no digest of the data either, as a digest of a short password tells the password to whoever is patient. `data_version`,
    the resource version, says that the data may have changed; the one service that needs the bytes reads that Secret itself. Annotations
    are left out, because tools copy data there.
    """

    resource: ClassVar = Resource("", "secrets")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Secret"

    type: str = "Opaque"
    keys: tuple[str, ...] = ()
    data_version: str = ""
    immutable: bool = False

    @classmethod
    def project(cls, raw: Mapping[str, Any]) -> Self:
        """The notice of a whole Secret. Raises pydantic.ValidationError."""
        metadata = {key: value for key, value in (raw.get("metadata") or {}).items() if key != "annotations"}
        names = {*(raw.get("data") or {}), *(raw.get("stringData") or {})}
        return cls.model_validate(
            {
                "metadata": metadata,
                "type": raw.get("type"),
                "keys": sorted(names),
                "dataVersion": metadata.get("resourceVersion"),
                "immutable": raw.get("immutable"),
            }
        )
