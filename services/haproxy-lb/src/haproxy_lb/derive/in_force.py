"""The pools in force: a local object of the store, so that what depends on them is derived again when they change."""

from dataclasses import dataclass
from typing import ClassVar, Final

from common.contracts.objects import Projection
from common.contracts.objects.meta import Metadata
from common.contracts.refs import Resource
from common.pools import Pools
from common.store import Reads

_NAME: Final = "pools"


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce(Projection):
    """The pools that were accepted last. No bus carries it."""

    resource: ClassVar = Resource("lb.seaway.dev", "inforce")
    api_version: ClassVar = "lb.seaway.dev/v1"
    kind: ClassVar = "InForce"
    namespaced: ClassVar = False

    pools: Pools


def accepted(pools: Pools) -> InForce:
    """The object that says so."""
    return InForce(metadata=Metadata(name=_NAME), pools=pools)


def in_force(view: Reads) -> Pools | None:
    """The pools in force; None while none were ever known."""
    found = view.get(InForce, "", _NAME)
    return found.pools if found is not None else None
