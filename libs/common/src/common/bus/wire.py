"""The JetStream API's shapes: our values as its JSON, its JSON as our values, its error codes as our errors.

Pure translation; `common.bus.link` carries the bytes. Codes are those of nats-server's `errors.json`, statuses those of ADR-13 and ADR-37,
acknowledgement subjects those of ADR-15. Durations are nanoseconds on the wire and seconds with us.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from common.bus.protocol import (
    BusError,
    Conflict,
    Denied,
    Full,
    Message,
    QueueConfig,
    StreamConfig,
    StreamMissing,
    StreamState,
    TooLarge,
    Unavailable,
)

API: Final = "$JS.API"
NO_MESSAGE: Final = 10037
NO_SEQUENCE: Final = 10043
DELETE_FAILED: Final = 10057
STREAM_EXISTS: Final = 10058
NOBODY: Final = "503"  # status of the answer when nobody listens (ADR-13)
NOT_FOUND: Final = "404"

_MOST_UNANSWERED: Final = 10_000
_NANO: Final = 1_000_000_000
_WHERE: Final = ("Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp")
_KINDS: Final[dict[int, type[BusError]]] = {
    10002: Full,  # resource limits exceeded for account
    10023: Full,  # insufficient resources
    10028: Full,  # insufficient memory resources available
    10047: Full,  # insufficient storage resources available
    10077: Full,  # the store failed: maximum bytes or messages exceeded
    10054: TooLarge,  # message size exceeds maximum allowed
    10059: StreamMissing,
    10071: Conflict,  # wrong last sequence, one server
    10164: Conflict,  # wrong last sequence, replicated: an earlier write of the subject is still under way
}
# The cluster is not able to just now, 10005 because servers are away.
_PASSING: Final = frozenset({10005, 10007, 10008, 10009, 10014})


class ApiError(BusError):
    """The server's refusal that has no meaning of its own to us."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def error_of(answer: Mapping[str, Any], about: str) -> BusError | None:
    """The error that an API answer carries, or None. `about` says what was asked."""
    error = answer.get("error")
    if error is None:
        return None
    code, text = int(error.get("err_code", 0)), f"{about}: {error.get('description', 'no reason given')}"
    kind = _KINDS.get(code)
    if kind is not None:
        return kind(text)
    return Unavailable(text) if int(error.get("code", 0)) in {429, 503} or code in _PASSING else ApiError(code, text)


def violation(text: str) -> tuple[Denied, str]:
    """A permissions violation as the server words it, and the subject it names in lower case ("" for a subscription)."""
    match = re.search(r'publish to "([^"]*)"', text)
    return Denied(text.removeprefix("nats: ")), match[1].lower() if match else ""


def stream_json(config: StreamConfig) -> dict[str, Any]:
    """What the server shall be asked for. Rollups and purges stay allowed, as in a key-value bucket (ADR-8)."""
    return {
        "name": config.name,
        "description": config.description,
        "subjects": list(config.subjects),
        "retention": config.retention,
        "discard": config.discard,
        "storage": config.storage,
        "num_replicas": config.replicas,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msg_size": -1,
        "max_msgs_per_subject": config.per_subject or -1,
        "max_bytes": config.max_bytes or -1,
        "max_age": int(config.max_age * _NANO),
        "duplicate_window": int(config.duplicate_window * _NANO),
        "allow_msg_ttl": config.message_ttl,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": config.deny_delete,
        "deny_purge": False,
    }


def drift(wanted: Mapping[str, Any], actual: Mapping[str, Any]) -> tuple[str, ...]:
    """The options in which `actual` differs from `wanted`. The server leaves out what is false or empty."""
    return tuple(sorted(key for key, value in wanted.items() if (actual.get(key) or None) != (value or None)))


def stream_state(answer: Mapping[str, Any]) -> StreamState:
    """A stream as the server describes it."""
    config, state = answer["config"], answer["state"]
    return StreamState(
        name=config["name"],
        created=answer["created"],
        last_sequence=state["last_seq"],
        messages=state["messages"],
        bytes=state["bytes"],
        config=StreamConfig(
            name=config["name"],
            subjects=tuple(config.get("subjects", ())),
            retention=config["retention"],
            discard=config["discard"],
            per_subject=max(0, config.get("max_msgs_per_subject", 0)),
            max_age=config.get("max_age", 0) / _NANO,
            max_bytes=max(0, config.get("max_bytes", 0)),
            message_ttl=config.get("allow_msg_ttl", False),
            deny_delete=config.get("deny_delete", False),
            replicas=config["num_replicas"],
            storage=config["storage"],
            duplicate_window=config.get("duplicate_window", 0) / _NANO,
            description=config.get("description", ""),
        ),
    )


def reader_json(name: str, filters: Sequence[str], sequence: int | None, *, headers_only: bool, inactive: float) -> dict[str, Any]:
    """An ephemeral consumer that needs no acknowledgements and keeps its state in the memory of one server."""
    config: dict[str, Any] = {
        "name": name,
        "ack_policy": "none",
        "deliver_policy": "last_per_subject" if sequence is None else "by_start_sequence",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(inactive * _NANO),
    }
    if sequence is not None:
        config["opt_start_seq"] = sequence
    if headers_only:
        config["headers_only"] = True
    config |= {"filter_subject": filters[0]} if len(filters) == 1 else {"filter_subjects": list(filters)}
    return config


def queue_json(config: QueueConfig) -> dict[str, Any]:
    """The durable consumer of a work queue."""
    return {
        "name": config.name,
        "durable_name": config.name,
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "filter_subject": config.filter,
        "ack_wait": int(config.ack_wait * _NANO),
        "max_deliver": config.max_deliver,
        "max_ack_pending": _MOST_UNANSWERED,
    }


def pull_json(batch: int, *, expires: float, heartbeat: float, max_bytes: int = 0) -> dict[str, Any]:
    """A request for the next messages of a consumer (ADR-37)."""
    request = {"batch": batch, "expires": int(expires * _NANO), "idle_heartbeat": int(heartbeat * _NANO)}
    return request | {"max_bytes": max_bytes} if max_bytes else request


class Delivered:
    """Where a delivered message stands, read from its acknowledgement subject (both versions of ADR-15)."""

    __slots__ = ("attempt", "pending", "position", "sequence", "time")

    def __init__(self, reply: str) -> None:
        tokens = reply.split(".")
        shift = 0 if len(tokens) == 9 else 2  # the second version inserts domain and account
        self.attempt = int(tokens[4 + shift])
        self.sequence = int(tokens[5 + shift])
        self.position = int(tokens[6 + shift])
        self.time = int(tokens[7 + shift]) / _NANO
        self.pending = int(tokens[8 + shift])


def stored_message(answer: Mapping[str, Any]) -> Message:
    """A message as `STREAM.MSG.GET` answers it."""
    message = answer["message"]
    headers = dict(_header_lines(base64.b64decode(message.get("hdrs", ""))))
    body = base64.b64decode(message.get("data", ""))
    return Message(message["subject"], headers, body, message["seq"], timestamp(message["time"]))


def direct_message(headers: Mapping[str, str], body: bytes) -> Message | None:
    """A message as a direct get answers it (ADR-31): where it stands is told by headers beside its own. None if there is none."""
    if headers.get("Status") == NOT_FOUND:
        return None
    if _WHERE[1] not in headers:
        raise Unavailable(f"a direct get was refused: {headers.get('Status', '')} {headers.get('Description', '')}".strip())
    own = {name: value for name, value in headers.items() if name not in _WHERE}
    _, subject, sequence, time = (headers[name] for name in _WHERE)
    return Message(subject, own, body, int(sequence), timestamp(time))


def timestamp(text: str) -> float:
    """An RFC 3339 time of the server, which has up to nine digits of a second, in seconds since 1970."""
    match = re.fullmatch(r"(.{19})(\.\d+)?Z", text)
    if match is None:
        raise ValueError(f"{text!r} is not a time in UTC")
    return datetime.fromisoformat(match[1]).replace(tzinfo=UTC).timestamp() + float(match[2] or 0)


def _header_lines(raw: bytes) -> Iterator[tuple[str, str]]:
    for line in raw.split(b"\r\n")[1:]:
        name, separator, value = line.partition(b":")
        if separator:
            yield name.decode("ascii", "replace").strip(), value.decode("utf-8", "replace").strip()
