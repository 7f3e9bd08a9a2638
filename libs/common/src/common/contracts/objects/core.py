"""Projections of the cluster itself: Node, Namespace, ConfigMap and the notice of a Secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from common.contracts.objects.meta import Condition, Part, Projection, Texts, Word, no_texts
from common.contracts.refs import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint(Part):
    """A taint of a node."""

    key: str
    value: str = ""
    effect: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec(Part):
    """v1 NodeSpec."""

    pod_cidr: str = ""
    pod_cidrs: tuple[str, ...] = ()
    provider_id: str = ""
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAddress(Part):
    """An address of a node."""

    type: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo(Part):
    """What a node runs."""

    architecture: str = ""
    kernel_version: str = ""
    kubelet_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(Part):
    """v1 NodeStatus without images and heartbeats."""

    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    capacity: Texts = field(default_factory=no_texts)
    allocatable: Texts = field(default_factory=no_texts)
    node_info: NodeInfo = NodeInfo()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Projection):
    """v1 Node."""

    resource: ClassVar = Resource("", "nodes")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Node"
    namespaced: ClassVar = False

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceStatus(Part):
    """v1 NamespaceStatus."""

    phase: Word = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace(Projection):
    """v1 Namespace."""

    resource: ClassVar = Resource("", "namespaces")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Namespace"
    namespaced: ClassVar = False

    status: NamespaceStatus = NamespaceStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMap(Projection):
    """v1 ConfigMap. `binary_data` is base64, as in Kubernetes."""

    resource: ClassVar = Resource("", "configmaps")
    api_version: ClassVar = "v1"
    kind: ClassVar = "ConfigMap"

    data: Mapping[str, str] = field(default_factory=no_texts)
    binary_data: Mapping[str, str] = field(default_factory=no_texts)
    immutable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret(Projection):
    """The notice of a v1 Secret: that it is there, its type and the names of its keys; never its data.

    It carries no digest of the data either, as a digest of a short password tells the password to whoever is patient. `data_version`,
    the resource version, says that the data may have changed; the one service that needs the bytes reads that Secret itself. Annotations
    are left out, because tools copy data there.
    """

    resource: ClassVar = Resource("", "secrets")
    api_version: ClassVar = "v1"
    kind: ClassVar = "Secret"

    type: Word = "Opaque"
    keys: tuple[Word, ...] = ()
    data_version: str = ""
    immutable: bool = False

    @classmethod
    def project(cls, raw: Mapping[str, Any]) -> Self:
        """The notice of a whole Secret. Raises pydantic.ValidationError."""
        metadata = {key: value for key, value in (raw.get("metadata") or {}).items() if key != "annotations"}
        names = {*(raw.get("data") or {}), *(raw.get("stringData") or {})}
        return cls.read(
            {
                "metadata": metadata,
                "type": raw.get("type"),
                "keys": sorted(names),
                "dataVersion": metadata.get("resourceVersion"),
                "immutable": raw.get("immutable"),
            }
        )
