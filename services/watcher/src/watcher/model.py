"""What a source of objects tells the watcher.

A source is anything that yields, for one resource or many, first a whole listing and then changes; or whole listings again and again. Raw
objects are plain data, as the API server or a manifest has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from common.contracts.objects import Projection
from common.contracts.problems import Problem

Raw: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of `model` that there are. Not `complete`: others may exist that could not be read, so absence means nothing."""

    model: type[Projection]
    items: Sequence[Raw]
    version: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Put:
    """An object was added or changed."""

    model: type[Projection]
    item: Raw


@dataclass(frozen=True, slots=True)
class Gone:
    """An object was deleted; `item` is its last state."""

    model: type[Projection]
    item: Raw


@dataclass(frozen=True, slots=True)
class Faults:
    """All problems that the source itself has now. Replaces what it said before."""

    problems: tuple[Problem, ...]


Observation: TypeAlias = Listed | Put | Gone | Faults
