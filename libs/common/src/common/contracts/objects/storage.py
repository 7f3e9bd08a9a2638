"""Projections of storage: PersistentVolumeClaim and StorageClass."""

from dataclasses import dataclass, field
from typing import ClassVar

from common.contracts.objects.meta import Condition, Part, Projection, Texts, Word, no_texts
from common.contracts.refs import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeResources(Part):
    """Quantities, as Kubernetes writes them: `10Gi`."""

    requests: Texts = field(default_factory=no_texts)
    limits: Texts = field(default_factory=no_texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentVolumeClaimSpec(Part):
    """v1 PersistentVolumeClaimSpec. `storage_class_name` None is the default class, "" is none."""

    access_modes: tuple[Word, ...] = ()
    resources: VolumeResources = VolumeResources()
    storage_class_name: str | None = None
    volume_mode: Word = "Filesystem"
    volume_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentVolumeClaimStatus(Part):
    """v1 PersistentVolumeClaimStatus."""

    phase: Word = ""
    access_modes: tuple[Word, ...] = ()
    capacity: Texts = field(default_factory=no_texts)
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentVolumeClaim(Projection):
    """v1 PersistentVolumeClaim."""

    resource: ClassVar = Resource("", "persistentvolumeclaims")
    api_version: ClassVar = "v1"
    kind: ClassVar = "PersistentVolumeClaim"

    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageClass(Projection):
    """storage.k8s.io/v1 StorageClass."""

    resource: ClassVar = Resource("storage.k8s.io", "storageclasses")
    api_version: ClassVar = "storage.k8s.io/v1"
    kind: ClassVar = "StorageClass"
    namespaced: ClassVar = False

    provisioner: Word = ""
    parameters: Texts = field(default_factory=no_texts)
    reclaim_policy: Word = "Delete"
    volume_binding_mode: Word = "Immediate"
    allow_volume_expansion: bool = False
    mount_options: tuple[str, ...] = ()
