"""Projections of storage: PersistentVolumeClaim and StorageClass."""

from typing import ClassVar

from common.contracts.objects.meta import Condition, Part, Projection
from common.contracts.refs import Resource


class VolumeResources(Part):
    """Quantities, as Kubernetes writes them: `10Gi`."""

    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class PersistentVolumeClaimSpec(Part):
    """v1 PersistentVolumeClaimSpec. `storage_class_name` None is the default class, "" is none."""

    access_modes: tuple[str, ...] = ()
    resources: VolumeResources = VolumeResources()
    storage_class_name: str | None = None
    volume_mode: str = "Filesystem"
    volume_name: str = ""


class PersistentVolumeClaimStatus(Part):
    """v1 PersistentVolumeClaimStatus."""

    phase: str = ""
    access_modes: tuple[str, ...] = ()
    capacity: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()


class PersistentVolumeClaim(Projection):
    """v1 PersistentVolumeClaim."""

    resource: ClassVar = Resource("", "persistentvolumeclaims")
    api_version: ClassVar = "v1"
    kind: ClassVar = "PersistentVolumeClaim"

    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()


class StorageClass(Projection):
    """storage.k8s.io/v1 StorageClass."""

    resource: ClassVar = Resource("storage.k8s.io", "storageclasses")
    api_version: ClassVar = "storage.k8s.io/v1"
    kind: ClassVar = "StorageClass"
    namespaced: ClassVar = False

    provisioner: str = ""
    parameters: dict[str, str] = {}
    reclaim_policy: str = "Delete"
    volume_binding_mode: str = "Immediate"
    allow_volume_expansion: bool = False
    mount_options: tuple[str, ...] = ()
