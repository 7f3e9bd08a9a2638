"""Manifests: what `kubectl apply` takes, as raw objects with the lines where they begin.

YAML or JSON, several documents a file, `List` objects unfolded.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import yaml

Raw: TypeAlias = dict[str, Any]

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes means it: a timestamp is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


class Fault(Exception):
    """Why a file is no manifest."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


def objects(path: str, text: str) -> Iterator[tuple[int, Raw]]:
    """The objects in the file at `path`, each with its line. Raises Fault."""
    for line, document in _documents(path, text):
        for raw in _unfold(line, document):
            yield line, raw


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path below a folder is not meant to be read."""
    return any(part.startswith(".") for part in parts)


def _documents(path: str, text: str) -> Iterator[tuple[int, Any]]:
    try:
        if path.endswith(".json"):
            yield 1, json.loads(text)
            return
        loader = _Loader(text)
        while (node := loader.get_node() if loader.check_node() else None) is not None:
            yield node.start_mark.line + 1, loader.construct_document(node)
    except json.JSONDecodeError as error:
        raise Fault(error.lineno, error.msg) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Fault(mark.line + 1 if mark else 1, error.problem or str(error)) from error
    except yaml.YAMLError as error:
        raise Fault(1, str(error).replace("\n", " ")) from error


def _unfold(line: int, document: Any) -> Iterable[Raw]:
    if document is None:
        return []
    if not isinstance(document, dict) or not document.get("kind") or not document.get("apiVersion"):
        raise Fault(line, "this document is no Kubernetes object: it needs apiVersion and kind")
    if str(document["kind"]).endswith("List") and isinstance(document.get("items"), list):
        return [raw for item in document["items"] for raw in _unfold(line, item)]
    return [document]
