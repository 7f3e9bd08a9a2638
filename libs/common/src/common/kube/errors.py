"""What can go wrong between us and the API server, each as one sentence with the mend.

    KubeError
    ├── Misconfigured          no cluster is named, or its kubeconfig cannot be used
    ├── Unreachable            no answer: refused, reset, timed out, TLS, or 502, 503, 504
    │   └── Silent             a stream that said nothing for too long
    ├── Unauthorized           401: the server does not know who we are
    ├── Forbidden              403: it knows, and says no; names the RBAC rule that is missing
    ├── NotFound               404
    │   └── UnknownResource    the server serves no such resource
    ├── Conflict               409: the object changed meanwhile
    │   ├── AlreadyExists
    │   └── Owned              server-side apply: a field belongs to somebody else
    ├── Gone                   410: the history before this version is no longer kept; list again
    ├── VersionTooLarge        the server has not seen this version (yet): its data may have been restored; list again
    ├── Invalid                400, 422 and the like: the request itself is wrong
    ├── TooManyRequests        429: wait for `retry_after` seconds
    ├── ServerFault            500: a fault of the server
    └── Garbled                an answer that makes no sense

The words of the server are in its `Status` object, which comes as the body of an answer or inside a watch (Kubernetes API concepts,
"Status").
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from common.contracts.refs import Resource
from common.kube import Raw

_DENIAL: Final = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<plural>[^"]+)" in API group "(?P<group>[^"]*)"'
)
_LONGEST_QUOTE: Final = 500


@dataclass(frozen=True, slots=True)
class Call:
    """A request, in the words of RBAC. `path` is its URL without host and query."""

    verb: str
    path: str
    resource: Resource | None = None
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        if self.resource is None:
            return f"{self.verb} {self.path}"
        what = f"{self.resource}/{self.subresource}" if self.subresource else str(self.resource)
        if self.name:
            return f"{self.verb} {what} {self.namespace}/{self.name}" if self.namespace else f"{self.verb} {what} {self.name}"
        return f"{self.verb} {what} in namespace {self.namespace}" if self.namespace else f"{self.verb} {what}"


class KubeError(Exception):
    """Whatever goes wrong between us and the API server. `causes` are the server's machine-readable words for it."""

    def __init__(self, message: str, *, retry_after: float | None = None, causes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.causes = tuple(causes)


class Misconfigured(KubeError):
    """No cluster is named, or what names it cannot be used."""


class Unreachable(KubeError):
    """There was no answer."""


class Silent(Unreachable):
    """A stream said nothing for too long."""


class Unauthorized(KubeError):
    """The server does not know who we are."""


class Forbidden(KubeError):
    """The server does not permit it."""


class NotFound(KubeError):
    """It is not there."""


class UnknownResource(NotFound):
    """The server serves no such resource."""


class Conflict(KubeError):
    """The object is not as we thought."""


class AlreadyExists(Conflict):
    """An object of this name is there."""


class Owned(Conflict):
    """Server-side apply: a field belongs to another manager. `fields` are pairs of field and what the server says of its owner."""

    def __init__(self, message: str, fields: Sequence[tuple[str, str]]) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class Gone(KubeError):
    """The history before this version is no longer kept."""


class VersionTooLarge(KubeError):
    """The server has not seen this version."""


class Invalid(KubeError):
    """The request itself is wrong."""


class TooManyRequests(KubeError):
    """The server asks us to come back later."""


class ServerFault(KubeError):
    """A fault of the server."""


class Garbled(KubeError):
    """An answer that makes no sense."""


_BUSY: Final = "the API server cannot answer now ({message})"
_PLAIN: Final[Mapping[int, tuple[type[KubeError], str]]] = {
    401: (Unauthorized, "the API server does not accept our credentials ({message}); renew the token or the certificate"),
    404: (NotFound, "{message}"),
    410: (Gone, "{message}"),
    429: (TooManyRequests, "the API server asks for patience ({message})"),
    502: (Unreachable, _BUSY),
    503: (Unreachable, _BUSY),
    504: (Unreachable, _BUSY),
}
_OTHER_FAULT: Final = (ServerFault, "the API server failed with HTTP {code} ({message}); its log says more")
_OTHER_REFUSAL: Final = (Invalid, "the API server refused the request with HTTP {code}: {message}")


def refusal(call: Call, code: int, body: bytes, retry_after: str | None = None) -> KubeError:
    """The error that an HTTP answer other than 2xx stands for."""
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"message": body[:_LONGEST_QUOTE].decode("utf-8", "replace").strip()}
    return from_status(call, {**status, "code": code}, _seconds(retry_after))


def from_status(call: Call, status: Raw, retry_after: float | None = None) -> KubeError:
    """The error that a `Status` object stands for."""
    code = status.get("code") or 0
    message = status.get("message") or f"no reason given (HTTP {code})"
    details = status.get("details") or {}
    causes: Sequence[Mapping[str, Any]] = details.get("causes") or ()
    words = [cause.get("reason", "") for cause in causes]
    wait = retry_after if retry_after is not None else _seconds(details.get("retryAfterSeconds"))
    if code == 403:
        return Forbidden(_forbidden(call, message), causes=words)
    if code == 409:
        return _conflict(call, status.get("reason", ""), message, causes)
    if code == 422 and any(cause.get("field") == "metadata.uid" for cause in causes):
        return Conflict(f"{call}: another object has this name now, and the one that was meant is gone")
    if "ResourceVersionTooLarge" in words or (code == 504 and "Too large resource version" in message):
        return VersionTooLarge(f"{call}: {message}; its data may have been restored from a backup")
    kind, sentence = _PLAIN.get(code, _OTHER_FAULT if code >= 500 else _OTHER_REFUSAL)
    return kind(f"{call}: {sentence.format(message=message, code=code)}", retry_after=wait, causes=words)


def _forbidden(call: Call, message: str) -> str:
    denial = _DENIAL.search(message)
    if denial is None:
        return f"{call}: {message}"
    rule = f'{{apiGroups: ["{denial["group"]}"], resources: ["{denial["plural"]}"], verbs: ["{denial["verb"]}"]}}'
    where = f"the Role in namespace {call.namespace} or the ClusterRole" if call.namespace else "the ClusterRole"
    return f"{call}: {denial['user']} has no permission; add the rule {rule} to {where} that is bound to it"


def _conflict(call: Call, reason: str, message: str, causes: Sequence[Mapping[str, Any]]) -> KubeError:
    fields = [(c.get("field", ""), c.get("message", "")) for c in causes if c.get("reason") == "FieldManagerConflict"]
    if fields:
        owners = ", ".join(f"{field} ({owner})" for field, owner in fields)
        return Owned(f"{call}: somebody else manages {owners}; leave these fields out, or apply by force to take them over", fields)
    if reason == "AlreadyExists":
        return AlreadyExists(f"{call}: an object of this name exists already")
    return Conflict(f"{call}: {message}", causes=[cause.get("reason", "") for cause in causes])


def _seconds(text: object) -> float | None:
    """`Retry-After` in seconds (RFC 9110 §10.2.3); its other form, a date, is not used by Kubernetes."""
    try:
        return max(0.0, float(text)) if isinstance(text, str | int) else None
    except ValueError:
        return None
