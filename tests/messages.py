"""Messages of the stream, as the watcher would have published them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.codec import digest, encode
from common.contracts.objects import BY_KIND, Projection
from common.contracts.refs import ResourceVersion
from common.contracts.state import ObjectApplied, ObjectDeleted, applied_event, deleted_event
from common.contracts.subjects import state_subject

NOW = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Stored:
    """A message of the stream."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    sequence: int
    gone: bool = False


def message(raw: dict[str, Any], sequence: int, *, gone: bool = False) -> Stored:
    """What stands for an object, or for its end."""
    model: type[Projection] = BY_KIND[raw["apiVersion"], raw["kind"]]
    projected = model.project({**raw, "metadata": {**raw["metadata"], "uid": "u"}})
    version = ResourceVersion(str(sequence))
    event = (
        deleted_event(ObjectDeleted(projected.ref, "u", version), source="/test", time=NOW)
        if gone
        else applied_event(ObjectApplied(projected, version, digest(projected.to_data())), source="/test", time=NOW)
    )
    encoded = encode(event)
    return Stored(state_subject("local", projected.ref), encoded.headers, encoded.body, sequence, gone)
