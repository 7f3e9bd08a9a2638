"""Names of things: resources, objects, and versions of objects.

A *resource* is what the API server calls by its plural in a URL (group and plural). The API version is no part of the identity, so an
object keeps its name when its API is upgraded. An *object reference* names one object of a resource.

Resource versions are comparable since Kubernetes 1.35 (KEP-5504): decimal digits without a leading zero; the longer one is newer, and of
two equally long ones the greater text.
"""

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import Final

_VERSION: Final = re.compile(r"[1-9][0-9]*", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A REST resource: `Resource("networking.k8s.io", "ingresses")`. The core group is the empty text, as in Kubernetes."""

    group: str
    plural: str

    def __str__(self) -> str:
        """`ingresses.networking.k8s.io`, or `services` in the core group, as `kubectl` writes it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """One object. `namespace` is empty for an object of the cluster."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        """`ingresses.networking.k8s.io shop/web`, for people."""
        return f"{self.resource} {self.namespace}/{self.name}" if self.namespace else f"{self.resource} {self.name}"


@total_ordering
@dataclass(frozen=True, slots=True)
class ResourceVersion:
    """A comparable resource version. Raises ValueError for a text that KEP-5504 does not allow ("0" means "any")."""

    text: str

    def __post_init__(self) -> None:
        if not _VERSION.fullmatch(self.text):
            raise ValueError(f"resourceVersion {self.text!r} is not a decimal number without leading zeros")

    def __lt__(self, other: "ResourceVersion") -> bool:
        return (len(self.text), self.text) < (len(other.text), other.text)

    def __str__(self) -> str:
        return self.text
