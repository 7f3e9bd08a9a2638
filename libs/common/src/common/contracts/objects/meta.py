"""The base of all projections.

A projection is the part of a Kubernetes object that Seaway's services read, under Kubernetes' own field names. Reading a raw object by its
model *is* projecting it: fields that the model does not know are left out, among them `managedFields` and heartbeats, which would otherwise
make a new version of an object every few seconds. Models grow by optional fields only, so that the bytes of an older release always decode.

Services hold such objects by the ten thousand, for as long as they run. So a model is a dataclass with slots, which pydantic fills and
writes at the edge and nobody checks again; a text that many objects have is one text (`Word`), and so is a piece that many have (`Shared`).
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Self, TypeAlias, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from common.contracts.refs import ObjectRef, Resource

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

Word: TypeAlias = Annotated[str, AfterValidator(sys.intern)]
Texts: TypeAlias = Mapping[str, Word]

_ACRONYMS: Final = {"ip": "IP", "ips": "IPs", "id": "ID", "cidr": "CIDR", "cidrs": "CIDRs"}
_NO_TEXTS: Final[Texts] = {}
_POOL: Final[dict["Shared", "Shared"]] = {}
_POOL_SIZE: Final = 4096
_KINDS: Final = 256  # models that are known at a time: ours, and those of objects that have none
_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {}


def kubernetes_name(name: str) -> str:
    """`pod_ips` is `podIPs`: camelCase with Kubernetes' habit for acronyms that are not the first word."""
    first, *rest = name.split("_")
    return first + "".join(_ACRONYMS.get(word, word.capitalize()) for word in rest)


def no_texts() -> Texts:
    """The one map of texts that all objects share which have none there."""
    return _NO_TEXTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a projection: frozen, camelCase outside, unknown fields ignored, null the same as absent."""

    __pydantic_config__: ClassVar = ConfigDict(extra="ignore", alias_generator=kubernetes_name, populate_by_name=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Self], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_without_nulls, handler(source))

    @classmethod
    def read(cls, data: Any) -> Self:
        """The piece that plain data stands for. Raises pydantic.ValidationError."""
        return cast("Self", _adapter(cls).validate_python(data))

    def to_data(self) -> dict[str, Any]:
        """Plain data for the wire: Kubernetes' field names, defaults left out."""
        data: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json", by_alias=True, exclude_defaults=True)
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared(Part):
    """A piece that most objects have an equal one of, so that one is kept for all."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Self], handler: GetCoreSchemaHandler) -> CoreSchema:
        # By its own name and not by `super()`: with slots, a dataclass is made anew.
        return core_schema.no_info_after_validator_function(_one_of_all, Part.__get_pydantic_core_schema__(source, handler))


_P = TypeVar("_P", bound=Shared)


def _adapter(model: type[Any]) -> TypeAdapter[Any]:
    if model not in _ADAPTERS:
        if len(_ADAPTERS) >= _KINDS:
            _ADAPTERS.clear()
        _ADAPTERS[model] = TypeAdapter(model)
    return _ADAPTERS[model]


def _without_nulls(data: Any) -> Any:
    if isinstance(data, dict) and None in data.values():
        return {key: value for key, value in data.items() if value is not None}
    return data


def _one_of_all(made: _P) -> _P:
    if len(_POOL) > _POOL_SIZE:
        _POOL.clear()
    kept = _POOL.setdefault(made, made)
    return kept if isinstance(kept, type(made)) else made


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerReference(Part):
    """Who owns an object."""

    api_version: Word = ""
    kind: Word
    name: Word
    uid: Word = ""
    controller: bool = False


def _without_last_applied(annotations: Texts) -> Texts:
    return {key: value for key, value in annotations.items() if key != LAST_APPLIED} or _NO_TEXTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata(Part):
    """What is known of every object. Timestamps are RFC 3339 texts, as Kubernetes writes them."""

    name: Word
    namespace: Word = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: Word = ""
    deletion_timestamp: str = ""
    labels: Texts = field(default_factory=no_texts)
    annotations: Annotated[Mapping[str, str], AfterValidator(_without_last_applied)] = field(default_factory=no_texts)
    owner_references: tuple[OwnerReference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
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
        return cls.read(raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unstructured(Projection):
    """An object of a resource that has no model here: everything but its bookkeeping, under `content`."""

    content: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def project(cls, raw: Mapping[str, Any]) -> Self:
        """All of `raw`. Raises pydantic.ValidationError."""
        content = {key: value for key, value in raw.items() if key not in {"apiVersion", "kind", "metadata"}}
        return cls.read({"metadata": raw.get("metadata"), "content": content})


@lru_cache(_KINDS)
def unstructured(resource: Resource, api_version: str, kind: str, *, namespaced: bool) -> type[Unstructured]:
    """A projection for a resource that is known at run time only, such as a custom resource."""
    names = {"resource": resource, "api_version": api_version, "kind": kind, "namespaced": namespaced, "__module__": __name__}
    return dataclass(frozen=True, slots=True, kw_only=True)(type(kind, (Unstructured,), names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition(Part):
    """A condition without its heartbeat. `last_transition_time` is an RFC 3339 text."""

    type: Word
    status: Word
    reason: Word = ""
    message: str = ""
    last_transition_time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancerPort(Part):
    """A port that a load balancer serves, or why it does not."""

    port: int
    protocol: Word = "TCP"
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancerIngress(Part):
    """An address at which an object is reachable."""

    ip: str = ""
    hostname: str = ""
    ip_mode: Word = ""
    ports: tuple[LoadBalancerPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancerStatus(Part):
    """All such addresses."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBalancedStatus(Shared):
    """The status of an Ingress or a Service."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


NO_ADDRESSES: Final = LoadBalancedStatus()
