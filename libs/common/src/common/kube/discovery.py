"""Which path a resource has, which version of it the server prefers, and whether its objects live in namespaces.

Resources are named without a version, so that an object keeps its name when its API is upgraded; the server's aggregated discovery
(KEP-3352, Kubernetes 1.27) says the rest in two requests. The answer is kept until a resource is missing in it.
"""

import asyncio
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import orjson

from common.contracts.refs import Resource
from common.kube import Raw
from common.kube.errors import Call, Garbled, UnknownResource
from common.kube.transport import Transport

ROOTS: Final = ("/api", "/apis")
ACCEPT: Final = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
)


@dataclass(frozen=True, slots=True)
class Api:
    """How the server serves a resource."""

    resource: Resource
    version: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """`networking.k8s.io/v1`, or `v1` in the core group."""
        return f"{self.resource.group}/{self.version}" if self.resource.group else self.version

    def call(self, verb: str, namespace: str = "", name: str = "", subresource: str = "") -> Call:
        """A request to objects of this resource. Raises ValueError for a name that no object can have."""
        one = bool(name) or verb == "create"
        if (namespace and not self.namespaced) or (one and self.namespaced and not namespace):
            need = "needs a namespace" if self.namespaced else "is of the cluster and has no namespace"
            raise ValueError(f"{self.resource} {need}")
        root = "/apis" if self.resource.group else "/api"
        within = ("namespaces", namespace) if namespace else ()
        parts = (*self.api_version.split("/"), *within, self.resource.plural, name, subresource)
        path = "/".join((root, *(_part(part) for part in parts if part)))
        return Call(verb, path, self.resource, namespace, name, subresource)


def _part(text: str) -> str:
    """A part of a path. Names may come from anybody, so that none may lead to another path."""
    if text in {".", ".."}:
        raise ValueError(f"{text!r} is no name that an object can have")
    return quote(text, safe=":")


def read(documents: Iterable[Raw]) -> dict[Resource, Api]:
    """The resources in discovery documents. A resource is served in the first, the preferred, version that has it."""
    apis: dict[Resource, Api] = {}
    for group in (group for document in documents for group in document["items"]):
        name = group.get("metadata", {}).get("name", "")
        for version in group.get("versions", ()):
            for found in version.get("resources", ()):
                resource = Resource(name, found["resource"])
                kind = (found.get("responseKind") or {}).get("kind", "")
                apis.setdefault(resource, Api(resource, version["version"], kind, found.get("scope") == "Namespaced"))
    return apis


class Discovery:
    """What the server serves, asked for once and again when something is missing."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._asking = asyncio.Lock()
        self._apis: dict[Resource, Api] = {}

    async def find(self, resource: Resource) -> Api:
        """How `resource` is served. Raises UnknownResource, with the names that are near."""
        before = self._apis
        if resource not in before:
            async with self._asking:
                if self._apis is before:
                    self._apis = await self._ask()
        try:
            return self._apis[resource]
        except KeyError:
            raise UnknownResource(_unknown(resource, self._apis)) from None

    def forget(self) -> None:
        """Asks again next time: what the server serves has changed."""
        self._apis = {}

    async def _ask(self) -> dict[Resource, Api]:
        documents = []
        for root in ROOTS:
            call = Call("get", root)
            try:
                document = orjson.loads(await self._transport.send(call, accept=ACCEPT))
            except orjson.JSONDecodeError as error:
                raise Garbled(f"{call}: the answer is no JSON ({error})") from error
            if document.get("kind") != "APIGroupDiscoveryList":
                raise Garbled(f"{call}: the API server has no aggregated discovery; Seaway needs Kubernetes 1.27 or newer")
            documents.append(document)
        return read(documents)


def _unknown(resource: Resource, apis: Iterable[Resource]) -> str:
    near = difflib.get_close_matches(str(resource), sorted(map(str, apis)), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "install its CustomResourceDefinition"
    return f"the API server serves no resource {resource}; {hint}"
