"""Resolved: what a name of a Service of type ExternalName was found to mean.

It is kept in the store beside the objects of the bus, under a resource of its own that no bus carries, so that backends are derived from it
like from all else. The addresses are as they were found: which of them may be asked is for the derivation to say.
"""

from dataclasses import dataclass
from typing import ClassVar

from common.contracts.objects import Projection
from common.contracts.objects.meta import Metadata
from common.contracts.refs import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved(Projection):
    """The addresses of a name, those of them that are this machine's own, and what keeps it from being looked up, in a sentence.

    After a lookup that failed the addresses are those of the last one that did not; where there was none, what it means is not `known`.
    """

    resource: ClassVar = Resource("edge.seaway.dev", "resolved")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "Resolved"
    namespaced: ClassVar = False

    addresses: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    problem: str = ""
    known: bool = True


def resolved(
    name: str, addresses: tuple[str, ...] = (), own: tuple[str, ...] = (), problem: str = "", *, known: bool = True
) -> Resolved:
    """What `name` means."""
    return Resolved(metadata=Metadata(name=name), addresses=addresses, own=own, problem=problem, known=known)
