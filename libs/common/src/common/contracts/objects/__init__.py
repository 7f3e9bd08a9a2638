"""Projections of Kubernetes objects, and the list of those that every watcher follows unless it is told otherwise."""

from typing import Final

from common.contracts.objects.core import ConfigMap, Namespace, Node, Secret
from common.contracts.objects.meta import LAST_APPLIED, Condition, Metadata, Projection, Unstructured, unstructured
from common.contracts.objects.networking import EndpointSlice, Ingress, IngressClass, Service
from common.contracts.objects.storage import PersistentVolumeClaim, StorageClass
from common.contracts.objects.workloads import Deployment, Pod
from common.contracts.refs import Resource

MODELS: Final[tuple[type[Projection], ...]] = (
    ConfigMap,
    Deployment,
    EndpointSlice,
    Ingress,
    IngressClass,
    Namespace,
    Node,
    PersistentVolumeClaim,
    Pod,
    Secret,
    Service,
    StorageClass,
)
BY_RESOURCE: Final[dict[Resource, type[Projection]]] = {model.resource: model for model in MODELS}
BY_KIND: Final[dict[tuple[str, str], type[Projection]]] = {(model.api_version, model.kind): model for model in MODELS}

__all__ = [
    "BY_KIND",
    "BY_RESOURCE",
    "LAST_APPLIED",
    "MODELS",
    "Condition",
    "ConfigMap",
    "Deployment",
    "EndpointSlice",
    "Ingress",
    "IngressClass",
    "Metadata",
    "Namespace",
    "Node",
    "PersistentVolumeClaim",
    "Pod",
    "Projection",
    "Secret",
    "Service",
    "StorageClass",
    "Unstructured",
    "unstructured",
]
