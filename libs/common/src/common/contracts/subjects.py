"""The subject grammar: where each message stands on the bus.

    state.v1.<cluster>.<group>.<resource>.<namespace>.<name>    one object
    sync.v1.<cluster>.<group>.<resource>                        the watcher's mark that a resource is complete
    evt.v1.<cluster>.<service>.<what>                           a fact
    alerts.v1.<cluster>.<severity>.<service>.<name>             what an operator should act on
    firing.v1.<cluster>.<service>.<instance>                    all alerts of an instance that fire, until others do
    jobs.v1.<cluster>.<domain>.<verb>                           work to be done once; given up: dlq.v1.<cluster>.<domain>.<verb>
    hooks.v1.<source>.<project>.<event>                         a webhook as it came
    wanted.v1.<cluster>.<service>.<what>                        what a service wants of others, until it wants something else
    ask.v1.<cluster>.<service>.<what>                           a question, which every instance of a service answers; in no stream

Each token is an encoded text. The encoding is injective and readable: letters, digits and `-` stay, `.` becomes `_`, and any other byte
of the UTF-8 form becomes `=XX`. So no text can smuggle a `.`, `*` or `>` into a subject, and two texts never share one. The token `_`
alone stands for "no namespace": the one text that would encode to it, ".", is no Kubernetes name and is refused. The core group is
`core`; no other group may be called so (a custom group has a dot in its name, and none of Kubernetes' own is).

A subject is as long as its names: three names of 253 characters are far below the server's `max_control_line` of 4 KiB.
"""

import re
from dataclasses import dataclass
from typing import Final

from common.contracts.refs import ObjectRef, Resource

STATE: Final = "state.v1"
SYNC: Final = "sync.v1"
EVENTS: Final = "evt.v1"
ALERTS: Final = "alerts.v1"
FIRING: Final = "firing.v1"
JOBS: Final = "jobs.v1"
DEAD_LETTERS: Final = "dlq.v1"
HOOKS: Final = "hooks.v1"
WANTED: Final = "wanted.v1"
ASK: Final = "ask.v1"

_NO_NAMESPACE: Final = "_"
_CORE: Final = "core"
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_TOKEN: Final = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+", re.ASCII)
_ESCAPE: Final = re.compile(rb"=([0-9A-F]{2})")


class SubjectError(ValueError):
    """A text that is no token, or a subject that the grammar does not know."""


def encode(text: str) -> str:
    """`text` as one token. Raises SubjectError for the empty text and for ".", which have no token of their own."""
    if text in {"", "."}:
        raise SubjectError(f"{text!r} cannot be a token of a subject")
    return "".join(chr(b) if b in _PLAIN else "_" if b == ord(".") else f"={b:02X}" for b in text.encode())


def decode(token: str) -> str:
    """The text that `token` encodes. Raises SubjectError for a token that `encode` never makes."""
    if not _TOKEN.fullmatch(token) or token == _NO_NAMESPACE:
        raise SubjectError(f"{token!r} is not an encoded token")
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), token.replace("_", ".").encode())
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise SubjectError(f"{token!r} does not encode UTF-8") from error
    if encode(text) != token:
        raise SubjectError(f"{token!r} is not the one way to write {text!r}")
    return text


def state_subject(cluster: str, ref: ObjectRef) -> str:
    """Where the state of one object stands."""
    namespace = encode(ref.namespace) if ref.namespace else _NO_NAMESPACE
    return f"{STATE}.{encode(cluster)}.{_group(ref.resource)}.{encode(ref.resource.plural)}.{namespace}.{encode(ref.name)}"


def state_filter(cluster: str, resource: Resource) -> str:
    """All objects of one resource, as a filter."""
    return f"{STATE}.{encode(cluster)}.{_group(resource)}.{encode(resource.plural)}.>"


def sync_subject(cluster: str, resource: Resource) -> str:
    """Where the watcher's mark for one resource stands."""
    return f"{SYNC}.{encode(cluster)}.{_group(resource)}.{encode(resource.plural)}"


def event_subject(cluster: str, service: str, what: str) -> str:
    """A fact that `service` reports, such as `evt.v1.prod.nginx-config-renderer.applied`."""
    return f"{EVENTS}.{encode(cluster)}.{encode(service)}.{encode(what)}"


def alert_subject(cluster: str, severity: str, service: str, name: str) -> str:
    """An alert of `service`."""
    return f"{ALERTS}.{encode(cluster)}.{encode(severity)}.{encode(service)}.{encode(name)}"


def firing_subject(cluster: str, service: str, instance: str) -> str:
    """What fires of one instance of `service`."""
    return f"{FIRING}.{encode(cluster)}.{encode(service)}.{encode(instance)}"


def job_subject(cluster: str, domain: str, verb: str) -> str:
    """Work of one domain."""
    return f"{JOBS}.{encode(cluster)}.{encode(domain)}.{encode(verb)}"


def wanted_subject(cluster: str, service: str, what: str) -> str:
    """What `service` wants of others, such as `wanted.v1.prod.haproxy-lb.addresses`."""
    return f"{WANTED}.{encode(cluster)}.{encode(service)}.{encode(what)}"


def ask_subject(cluster: str, service: str, what: str) -> str:
    """What `service` is asked, such as `ask.v1.prod.nginx-config-renderer.explain`."""
    return f"{ASK}.{encode(cluster)}.{encode(service)}.{encode(what)}"


def dead_letter_subject(job: str) -> str:
    """Where a job that was given up is kept: the same tokens under the root of dead letters."""
    if not job.startswith(f"{JOBS}."):
        raise SubjectError(f"{job!r} is not the subject of a job")
    return DEAD_LETTERS + job.removeprefix(JOBS)


@dataclass(frozen=True, slots=True, order=True)
class StateSubject:
    """A parsed `state.v1` subject."""

    cluster: str
    ref: ObjectRef


def parse_state(subject: str) -> StateSubject:
    """The object whose state stands at `subject`. Raises SubjectError."""
    tokens = subject.split(".")
    if len(tokens) != 7 or f"{tokens[0]}.{tokens[1]}" != STATE:
        raise SubjectError(f"{subject!r} is not {STATE}.<cluster>.<group>.<resource>.<namespace>.<name>")
    cluster, group, plural, namespace, name = tokens[2:]
    resource = Resource("" if group == _CORE else decode(group), decode(plural))
    return StateSubject(decode(cluster), ObjectRef(resource, "" if namespace == _NO_NAMESPACE else decode(namespace), decode(name)))


def parse_sync(subject: str) -> tuple[str, Resource]:
    """The cluster and resource that a `sync.v1` subject speaks of. Raises SubjectError."""
    tokens = subject.split(".")
    if len(tokens) != 5 or f"{tokens[0]}.{tokens[1]}" != SYNC:
        raise SubjectError(f"{subject!r} is not {SYNC}.<cluster>.<group>.<resource>")
    return decode(tokens[2]), Resource("" if tokens[3] == _CORE else decode(tokens[3]), decode(tokens[4]))


def _group(resource: Resource) -> str:
    if resource.group == _CORE:
        raise SubjectError("a group cannot be called 'core': that token stands for the core group")
    return encode(resource.group) if resource.group else _CORE
