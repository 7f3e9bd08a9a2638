"""Manifests: a folder of YAML and JSON files as a listing of objects.

The objects get what the API server would have given them: a namespace (`default`), a uid (made of the name, so it is the same tomorrow)
and a resource version (the time of reading). A file that cannot be read leaves the objects of its last good version in force. An object
that two files define belongs to the first file by name.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.contracts.objects import BY_KIND, Projection
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource, ResourceVersion
from common.manifests import Fault, objects
from watcher.model import Raw
from watcher.projection import Unreadable, applied

FILE: Final = Resource("seaway.dev", "manifests")
_NAMES: Final = uuid.UUID("5ea3a7e0-1f6c-5d0e-9d0b-6a1c0c7f2b11")


@dataclass(frozen=True, slots=True)
class Manifest:
    """An object and the line where it begins."""

    ref: ObjectRef
    model: type[Projection]
    raw: Raw
    line: int


@dataclass(frozen=True, slots=True)
class File:
    """What a file defines. `ignored` counts objects of kinds that nobody follows."""

    manifests: tuple[Manifest, ...]
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a file cannot be used."""

    problem: Problem


def parse(path: str, text: str, version: ResourceVersion) -> File | Broken:
    """The objects that the file at `path` defines. One bad object breaks its file, so that nobody deploys half of it."""
    manifests: list[Manifest] = []
    ignored = 0
    try:
        for line, raw in objects(path, text):
            model = BY_KIND.get((str(raw.get("apiVersion")), str(raw.get("kind"))))
            if model is None:
                ignored += 1
                continue
            manifests.append(_admit(model, raw, version, line))
    except Fault as fault:
        return Broken(problem(path, fault.line, fault.reason))
    return File(tuple(manifests), ignored)


def merge(files: Mapping[str, File]) -> tuple[dict[ObjectRef, Manifest], tuple[Problem, ...]]:
    """All objects of a folder, and the claims that came second."""
    claimed: dict[ObjectRef, tuple[str, Manifest]] = {}
    problems = []
    for path, file in sorted(files.items()):
        for manifest in file.manifests:
            first, holder = claimed.setdefault(manifest.ref, (path, manifest))
            if holder is not manifest:
                reason = f"{manifest.ref} is already defined in {first}:{holder.line}; remove one of the two"
                problems.append(problem(path, manifest.line, reason))
    return {ref: manifest for ref, (_, manifest) in sorted(claimed.items())}, tuple(problems)


def problem(path: str, line: int, reason: str) -> Problem:
    """Something is wrong at a line of a file."""
    return Problem(ObjectRef(FILE, "", path), "BrokenManifest", f"{path}:{line}: {reason}")


def _admit(model: type[Projection], raw: Raw, version: ResourceVersion, line: int) -> Manifest:
    metadata = raw.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise Fault(line, f"this {model.kind} has no metadata.name, or one that is no text")
    namespace = str(metadata.get("namespace") or "default") if model.namespaced else ""
    ref = ObjectRef(model.resource, namespace, metadata["name"])
    uid = str(uuid.uuid5(_NAMES, str(ref)))
    whole = {**raw, "metadata": {**metadata, "namespace": namespace, "uid": uid, "resourceVersion": str(version)}}
    message = applied(model, whole)
    if isinstance(message, Unreadable):
        raise Fault(line, f"{model.kind} {namespace}/{ref.name}: {message.problem.message}")
    return Manifest(ref, model, whole, line)
