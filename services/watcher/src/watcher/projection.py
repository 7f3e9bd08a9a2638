"""Projection: from a raw object to the message that stands for it on the bus.

What is published is a projection (`common.contracts.objects`): no managedFields, no last-applied configuration, no heartbeats, and of a
Secret only that it is there. Two versions of an object with the same projection have the same digest, and the second is not published.
"""

from dataclasses import dataclass

from pydantic import ValidationError

from common.codec import digest
from common.contracts.objects import Projection
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, ResourceVersion
from common.contracts.state import ObjectApplied, ObjectDeleted
from watcher.model import Raw


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object that is there and cannot be projected. `ref` is None if it has not even a name."""

    ref: ObjectRef | None
    problem: Problem


def applied(model: type[Projection], raw: Raw) -> ObjectApplied | Unreadable:
    """The message that puts `raw` in force."""
    ref = reference(model, raw)
    try:
        projected = model.project(raw)
        version = ResourceVersion(_metadata(raw, "resourceVersion"))
    except ValidationError as error:
        return _unreadable(model, ref, complaint(error))
    except ValueError as error:
        return _unreadable(model, ref, f"metadata.{error}")
    return ObjectApplied(projected, version, digest(projected.to_data()))


def deleted(model: type[Projection], raw: Raw) -> ObjectDeleted | Unreadable:
    """The tombstone of `raw`."""
    ref = reference(model, raw)
    if ref is None:
        return _unreadable(model, None, "metadata.name is missing")
    try:
        return ObjectDeleted(ref, _metadata(raw, "uid"), ResourceVersion(_metadata(raw, "resourceVersion")))
    except ValueError as error:
        return _unreadable(model, ref, f"metadata.{error}")


def reference(model: type[Projection], raw: Raw) -> ObjectRef | None:
    """The name of a raw object, if it has one."""
    name = _metadata(raw, "name")
    return ObjectRef(model.resource, _metadata(raw, "namespace"), name) if name else None


def complaint(error: ValidationError) -> str:
    """A validation error as one sentence: each field, what it holds, and what is wrong with it."""
    complaints = []
    for one in error.errors(include_url=False):
        field = ".".join(str(part) for part in one["loc"]) or "the object"
        given = "" if one["type"] == "missing" else f" {one['input']!r:.80}"
        complaints.append(f"{field}{given}: {one['msg'][:1].lower()}{one['msg'][1:]}")
    return "; ".join(complaints)


def _metadata(raw: Raw, field: str) -> str:
    metadata = raw.get("metadata")
    value = metadata.get(field) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""


def _unreadable(model: type[Projection], ref: ObjectRef | None, message: str) -> Unreadable:
    return Unreadable(ref, Problem(ref or ObjectRef(model.resource, "", "?"), "Unreadable", message))
