"""The API server's verbs, on plain data.

`async with KubeSession.auto() as kube:` opens a way to the cluster that is meant (see `common.kube.credentials`). Every call has a deadline
and raises a KubeError (`common.kube.errors`) that names its object and the mend. Nothing is retried here.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

import orjson

from common.contracts.refs import ObjectRef, Resource
from common.kube import Raw
from common.kube.access import Credentials
from common.kube.credentials import PodCredentials, find, from_files
from common.kube.discovery import Api, Discovery
from common.kube.errors import Call, Garbled, Gone, NotFound
from common.kube.transport import JSON, Transport

AGENT: Final = "seaway"
PAGE: Final = 500  # objects of a list in one answer, as client-go asks for
LIST_DEADLINE: Final = 60.0  # seconds for one answer of a list
SILENCE: Final = 180.0  # seconds without even a bookmark, of which the server sends about one a minute
OVERTIME: Final = 30.0  # seconds that a watch may go on beyond the time after which the server should have ended it

APPLY: Final = "application/apply-patch+yaml"
PATCHES: Final = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects of a resource are meant: all, or those of a namespace, or those that selectors choose."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""

    def query(self) -> dict[str, str]:
        """The selectors as query parameters."""
        chosen = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {name: text for name, text in chosen.items() if text}


EVERYTHING: Final = Scope()


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a scope, as they were at one version."""

    items: Sequence[Raw]
    version: str


class KubeSession:
    """A way to one API server, open while its asynchronous context lasts."""

    def __init__(self, credentials: Credentials, *, agent: str = AGENT) -> None:
        self._transport = Transport(credentials, agent)
        self._discovery = Discovery(self._transport)

    @classmethod
    def from_kubeconfig(cls, path: str | None = None, *, agent: str = AGENT) -> Self:
        """The cluster of a kubeconfig; without a path that of KUBECONFIG, or of `~/.kube/config`."""
        return cls(from_files(path), agent=agent)

    @classmethod
    def in_cluster(cls, *, agent: str = AGENT) -> Self:
        """The cluster whose pod we are."""
        return cls(PodCredentials(), agent=agent)

    @classmethod
    def auto(cls, kubeconfig: str | None = None, *, agent: str = AGENT) -> Self:
        """The cluster that is meant: `kubeconfig`, else KUBECONFIG, else the pod's, else that of `~/.kube/config`."""
        return cls(find(kubeconfig), agent=agent)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._transport.__aexit__(kind, error, trace)

    async def api(self, resource: Resource) -> Api:
        """How the server serves `resource`. Raises UnknownResource."""
        return await self._discovery.find(resource)

    async def get(self, ref: ObjectRef) -> Raw:
        """One object."""
        return await self._send(await self._object("get", ref))

    async def list(self, resource: Resource, scope: Scope = EVERYTHING) -> Listing:
        """All objects of `scope` by a consistent read, so that what is not in it does not exist."""
        call = (await self.api(resource)).call("list", scope.namespace)
        try:
            return await self._pages(call, scope, PAGE)
        except Gone:
            # The first page's version was compacted away before the last page was read: all in one answer cannot expire.
            return await self._pages(call, scope, 0)

    @asynccontextmanager
    async def watch(
        self, resource: Resource, scope: Scope, query: Mapping[str, str], *, seconds: int, silence: float = SILENCE
    ) -> AsyncIterator[AsyncIterator[Sequence[bytes]]]:
        """The lines of a watch, in batches, for about `seconds`. What they mean is `common.kube.reflection`'s matter."""
        call = (await self.api(resource)).call("watch", scope.namespace)
        query = {"watch": "true", "timeoutSeconds": str(seconds), **scope.query(), **query}
        try:
            async with self._transport.stream(call, query=query, silence=silence, deadline=seconds + OVERTIME) as lines:
                yield lines
        except NotFound:
            self._discovery.forget()
            raise

    async def create(self, resource: Resource, body: Raw, *, namespace: str = "") -> Raw:
        """Makes an object; returns it as it is now."""
        call = (await self.api(resource)).call("create", namespace)
        return await self._send(call, body)

    async def update(self, ref: ObjectRef, body: Raw) -> Raw:
        """Replaces an object. With a `resourceVersion` in `body`, raises Conflict if somebody else changed it meanwhile."""
        return await self._send(await self._object("update", ref), body)

    async def patch(
        self,
        ref: ObjectRef,
        patch: Raw | Sequence[Raw],
        *,
        manager: str,
        kind: Literal["merge", "json"] = "merge",
        subresource: str = "",
    ) -> Raw:
        """Changes a part of an object."""
        call = await self._object("patch", ref, subresource)
        return await self._send(call, patch, query={"fieldManager": manager}, content_type=PATCHES[kind])

    async def apply(self, ref: ObjectRef, fields: Raw, *, manager: str, force: bool = False, subresource: str = "") -> Raw:
        """Server-side apply: makes `fields` true and ours, and drops those that were ours and are not among them. Raises Owned."""
        api = await self.api(ref.resource)
        metadata = {**fields.get("metadata", {}), "name": ref.name, **({"namespace": ref.namespace} if ref.namespace else {})}
        body = {**fields, "apiVersion": api.api_version, "kind": api.kind, "metadata": metadata}
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._send(await self._object("patch", ref, subresource), body, query=query, content_type=APPLY)

    async def delete(self, ref: ObjectRef, *, uid: str | None = None) -> None:
        """Deletes an object; with `uid` only that one, and raises Conflict if another has its name now."""
        body = None if uid is None else {"preconditions": {"uid": uid}}
        await self._send(await self._object("delete", ref), body)

    async def _object(self, verb: str, ref: ObjectRef, subresource: str = "") -> Call:
        return (await self.api(ref.resource)).call(verb, ref.namespace, ref.name, subresource)

    async def _send(
        self, call: Call, body: Any = None, *, query: Mapping[str, str] | None = None, content_type: str = JSON
    ) -> dict[str, Any]:
        data = None if body is None else orjson.dumps(body)
        return _document(call, await self._transport.send(call, query=query, body=data, content_type=content_type))

    async def _pages(self, call: Call, scope: Scope, limit: int) -> Listing:
        query = scope.query() | ({"limit": str(limit)} if limit else {})
        items: list[Raw] = []
        following = ""
        while True:
            page = query | ({"continue": following} if following else {})
            try:
                document = _document(call, await self._transport.send(call, query=page, deadline=LIST_DEADLINE))
            except NotFound:
                self._discovery.forget()
                raise
            items.extend(_typed(document))
            following = document["metadata"].get("continue", "")
            if not following:
                return Listing(items, document["metadata"]["resourceVersion"])


def _document(call: Call, data: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Garbled(f"{call}: the answer is no JSON ({error})") from error
    if not isinstance(document, dict):
        raise Garbled(f"{call}: the answer is no object")
    return document


def _typed(document: Raw) -> list[Raw]:
    """The items of a list, which leave out what a watch tells of each: their kind."""
    kind = {"kind": document["kind"].removesuffix("List"), "apiVersion": document["apiVersion"]}
    return [kind | item for item in document.get("items") or ()]
