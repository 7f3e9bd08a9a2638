"""How the replica is shown: rows of text, or whole objects as JSON or YAML.

Pure: the moment "now" comes in as an argument.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import yaml

from common.contracts.refs import ObjectRef, Resource
from common.contracts.state import ObjectApplied


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


COLUMNS = ("RESOURCE", "NAMESPACE", "NAME", "VERSION", "AGE")


def age(seconds: float) -> str:
    """A duration as `kubectl` writes it: its two greatest units at most, `3d4h`, `12m`, `45s`."""
    left = max(0, int(seconds))
    if left < 120:
        return f"{left}s"
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    first = next(index for index, (_, size) in enumerate(units) if left >= size)
    parts = []
    for name, size in units[first : first + 2]:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts)


def row(message: ObjectApplied, stored: float, now: float) -> tuple[str, ...]:
    """An object as a line of the table. `stored` is when the bus stored this version; both in seconds since 1970."""
    ref = message.ref
    return (str(ref.resource), ref.namespace or "-", ref.name, str(message.version), age(now - stored))


def table(rows: Iterable[Sequence[str]], columns: Sequence[str] = COLUMNS) -> str:
    """Rows below their heads, each column as wide as its widest cell."""
    lines = [tuple(columns), *map(tuple, rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def document(message: ObjectApplied) -> dict[str, Any]:
    """An object as a manifest, with its version on the bus."""
    data = message.object.to_data()
    metadata: Mapping[str, Any] = data.pop("metadata")
    head = {"apiVersion": message.object.api_version, "kind": message.object.kind}
    return {**head, "metadata": {**metadata, "resourceVersion": str(message.version)}, **data}


def dump(document: Mapping[str, Any], form: Format) -> str:
    """One whole object."""
    if form is Format.JSON:
        return json.dumps(document, indent=2, ensure_ascii=False)
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True).rstrip("\n")


def dump_list(documents: Sequence[Mapping[str, Any]], form: Format) -> str:
    """Whole objects, however many: a `List` as kubectl writes it (JSON), or a stream of documents (YAML)."""
    if form is Format.JSON:
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}, indent=2, ensure_ascii=False)
    return yaml.safe_dump_all([dict(document) for document in documents], sort_keys=False, allow_unicode=True).rstrip("\n")


def dump_change(kind: str, document: Mapping[str, Any], form: Format) -> str:
    """What happened to an object, as a watch of the API server writes it: JSON on a line of its own, or a document of a YAML stream."""
    change = {"type": kind, "object": document}
    if form is Format.JSON:
        return json.dumps(change, ensure_ascii=False)
    return yaml.safe_dump(change, sort_keys=False, allow_unicode=True, explicit_start=True).rstrip("\n")


def identity(seen: ObjectRef, version: str) -> dict[str, Any]:
    """What is known of a deleted object."""
    resource = {"group": seen.resource.group, "resource": seen.resource.plural}
    return {**resource, "metadata": {"namespace": seen.namespace, "name": seen.name, "resourceVersion": version}}


def find(name: str, known: Iterable[Resource]) -> Resource | None:
    """The resource that an operator means: `ingresses`, `ingresses.networking.k8s.io`, or its singular, in any case."""
    wanted = name.lower()
    for resource in sorted(known):
        if wanted in {str(resource), resource.plural, resource.plural.removesuffix("s"), resource.plural.removesuffix("es")}:
            return resource
    return None


def named(resource: Resource, namespace: str, name: str) -> ObjectRef:
    """An object by the words of a command line, where `-` or `_` stands for "no namespace"."""
    return ObjectRef(resource, "" if namespace in {"-", "_"} else namespace, name)
