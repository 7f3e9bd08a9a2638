"""Manifests: a folder of YAML and JSON files as a listing of objects.

A manifest is what `kubectl apply` takes: several documents a file, `List` objects unfolded. The objects get what the API server would
have given them: a namespace (`default`), a uid (made of the name, so it is the same tomorrow) and a resource version (the time of
reading). A file that cannot be read leaves the objects of its last good version in force. An object that two files define belongs to the
first file by name.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from common.contracts.objects import BY_KIND, Projection
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource, ResourceVersion
from watcher.model import Raw
from watcher.projection import Unreadable, applied

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
FILE: Final = Resource("seaway.dev", "manifests")
_NAMES: Final = uuid.UUID("5ea3a7e0-1f6c-5d0e-9d0b-6a1c0c7f2b11")


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes means it: a timestamp is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


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
        for line, document in _documents(path, text):
            for raw in _unfold(line, document):
                model = BY_KIND.get((str(raw.get("apiVersion")), str(raw.get("kind"))))
                if model is None:
                    ignored += 1
                    continue
                manifests.append(_admit(model, raw, version, line))
    except _Fault as fault:
        return Broken(problem(path, fault.line, fault.reason))
    return File(tuple(manifests), ignored)


def merge(files: Mapping[str, File]) -> tuple[dict[ObjectRef, Manifest], tuple[Problem, ...]]:
    """All objects of a folder, and the claims that came second."""
    objects: dict[ObjectRef, tuple[str, Manifest]] = {}
    problems = []
    for path, file in sorted(files.items()):
        for manifest in file.manifests:
            first, holder = objects.setdefault(manifest.ref, (path, manifest))
            if holder is not manifest:
                reason = f"{manifest.ref} is already defined in {first}:{holder.line}; remove one of the two"
                problems.append(problem(path, manifest.line, reason))
    return {ref: manifest for ref, (_, manifest) in sorted(objects.items())}, tuple(problems)


def problem(path: str, line: int, reason: str) -> Problem:
    """Something is wrong at a line of a file."""
    return Problem(ObjectRef(FILE, "", path), "BrokenManifest", f"{path}:{line}: {reason}")


class _Fault(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


def _documents(path: str, text: str) -> Iterator[tuple[int, Any]]:
    try:
        if path.endswith(".json"):
            yield 1, json.loads(text)
            return
        loader = _Loader(text)
        while (node := loader.get_node() if loader.check_node() else None) is not None:
            yield node.start_mark.line + 1, loader.construct_document(node)
    except json.JSONDecodeError as error:
        raise _Fault(error.lineno, error.msg) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Fault(mark.line + 1 if mark else 1, error.problem or str(error)) from error
    except yaml.YAMLError as error:
        raise _Fault(1, str(error).replace("\n", " ")) from error


def _unfold(line: int, document: Any) -> Iterable[Raw]:
    if document is None:
        return []
    if not isinstance(document, dict) or not document.get("kind") or not document.get("apiVersion"):
        raise _Fault(line, "this document is no Kubernetes object: it needs apiVersion and kind")
    if str(document["kind"]).endswith("List") and isinstance(document.get("items"), list):
        return [raw for item in document["items"] for raw in _unfold(line, item)]
    return [document]


def _admit(model: type[Projection], raw: Raw, version: ResourceVersion, line: int) -> Manifest:
    metadata = raw.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise _Fault(line, f"this {model.kind} has no metadata.name, or one that is no text")
    namespace = str(metadata.get("namespace") or "default") if model.namespaced else ""
    ref = ObjectRef(model.resource, namespace, metadata["name"])
    uid = str(uuid.uuid5(_NAMES, str(ref)))
    whole = {**raw, "metadata": {**metadata, "namespace": namespace, "uid": uid, "resourceVersion": str(version)}}
    message = applied(model, whole)
    if isinstance(message, Unreadable):
        raise _Fault(line, f"{model.kind} {namespace}/{ref.name}: {message.problem.message}")
    return Manifest(ref, model, whole, line)
