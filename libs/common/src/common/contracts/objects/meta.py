"""The base of all projections.

A projection is the part of a Kubernetes object that Seaway's services read, under Kubernetes' own field names. Validating a raw object
against its model *is* projecting it: fields that the model does not know are left out, among them `managedFields` and heartbeats, which
would otherwise make a new version of an object every few seconds. Models grow by optional fields only, so that the bytes of an older
release always decode.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator

from common.contracts.refs import ObjectRef, Resource

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


_ACRONYMS: Final = {"ip": "IP", "ips": "IPs", "id": "ID", "cidr": "CIDR", "cidrs": "CIDRs"}


def _kubernetes_name(field: str) -> str:
    """`pod_ips` is `podIPs`: camelCase with Kubernetes' habit for acronyms that are not the first word."""
    first, *rest = field.split("_")
    return first + "".join(_ACRONYMS.get(word, word.capitalize()) for word in rest)


_NOT_NOTED: Final[set[str]] = set()
_POOL: Final[dict["Part", "Part"]] = {}
_POOL_SIZE: Final = 4096


class Part(BaseModel):
    """A piece of a projection: frozen, camelCase outside, unknown fields ignored, null the same as absent."""

    repeats: ClassVar[bool] = False  # whether most objects have an equal one, so that one is kept for all

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=_kubernetes_name, populate_by_name=True)

    @model_validator(mode="wrap")
    @classmethod
    def _lean(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Null is absent. Which fields were set is of no interest, and would be a third of what an object takes."""
        if isinstance(data, dict) and None in data.values():
            data = {key: value for key, value in data.items() if value is not None}
        made = handler(data)
        object.__setattr__(made, "__pydantic_fields_set__", _NOT_NOTED)
        return _one_of_all(made) if cls.repeats else made


_P = TypeVar("_P", bound=Part)


def _one_of_all(made: _P) -> _P:
    if len(_POOL) > _POOL_SIZE:
        _POOL.clear()
    kept = _POOL.setdefault(made, made)
    return kept if isinstance(kept, type(made)) else made


class OwnerReference(Part):
    """Who owns an object."""

    api_version: str = ""
    kind: str
    name: str
    uid: str = ""
    controller: bool = False


def _without_last_applied(annotations: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in annotations.items() if key != LAST_APPLIED}


class Metadata(Part):
    """What is known of every object. Timestamps are RFC 3339 texts, as Kubernetes writes them."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}
    annotations: Annotated[dict[str, str], AfterValidator(_without_last_applied)] = {}
    owner_references: tuple[OwnerReference, ...] = ()


class Projection(Part):
    """A projected object. Subclasses say which resource they are of."""

    resource: ClassVar[Resource]
    api_version: ClassVar[str]
    kind: ClassVar[str]
    namespaced: ClassVar[bool] = True

    metadata: Metadata

    @property
    def ref(self) -> ObjectRef:
        """The name of this object."""
        return ObjectRef(self.resource, self.metadata.namespace, self.metadata.name)

    @classmethod
    def project(cls, raw: Mapping[str, Any]) -> Self:
        """The projection of an object as the API server (or a manifest) has it. Raises pydantic.ValidationError."""
        return cls.model_validate(raw)

    def to_data(self) -> dict[str, Any]:
        """Plain data for the wire: Kubernetes' field names, defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


class Unstructured(Projection):
    """An object of a resource that has no model here: everything but its bookkeeping, under `content`."""

    content: dict[str, Any] = {}

    @classmethod
    def project(cls, raw: Mapping[str, Any]) -> Self:
        """All of `raw`. Raises pydantic.ValidationError."""
        content = {key: value for key, value in raw.items() if key not in {"apiVersion", "kind", "metadata"}}
        return cls.model_validate({"metadata": raw.get("metadata"), "content": content})


def unstructured(resource: Resource, api_version: str, kind: str, *, namespaced: bool) -> type[Unstructured]:
    """A projection for a resource that is known at run time only, such as a custom resource."""
    names = {"resource": resource, "api_version": api_version, "kind": kind, "namespaced": namespaced, "__module__": __name__}
    return type(kind, (Unstructured,), names)


class Condition(Part):
    """A condition without its heartbeat. `last_transition_time` is an RFC 3339 text."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class LoadBalancerPort(Part):
    """A port that a load balancer serves, or why it does not."""

    port: int
    protocol: str = "TCP"
    error: str = ""


class LoadBalancerIngress(Part):
    """An address at which an object is reachable."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str = ""
    ports: tuple[LoadBalancerPort, ...] = ()


class LoadBalancerStatus(Part):
    """All such addresses."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class LoadBalancedStatus(Part):
    """The status of an Ingress or a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
