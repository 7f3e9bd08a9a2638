"""Reach: which addresses requests may be sent to.

The API server keeps loopback and link-local addresses out of EndpointSlices, but not out of names, and a bus has no such rule at all.
Behind them are things that trust whoever gets there: programs of this machine, and the metadata of a cloud, which holds credentials. Nor
may requests come to the edge's own ports, where they would go round or find what is not for them.
"""

import ipaddress
from dataclasses import dataclass
from typing import ClassVar, Final

from common.contracts.objects import Projection
from common.contracts.objects.meta import Metadata
from common.contracts.refs import Resource
from common.store import Reads

_NAME: Final = "reach"
# Where clouds keep metadata, beside the link-local address that most of them use.
_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)


@dataclass(frozen=True, slots=True)
class Reach:
    """What the settings say: `loopback` may be reached, as a folder of manifests on one machine may want; Services may lead to names
    outside (`external`); `reserved` are the edge's own ports.
    """

    loopback: bool = True
    external: bool = True
    reserved: frozenset[int] = frozenset()


EVERYWHERE: Final = Reach()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaching(Projection):
    """What is in force. No bus carries it."""

    resource: ClassVar = Resource("edge.seaway.dev", "reach")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "Reach"
    namespaced: ClassVar = False

    reach: Reach


def reaching(reach: Reach) -> Reaching:
    """The object that says so."""
    return Reaching(metadata=Metadata(name=_NAME), reach=reach)


def reach_of(view: Reads) -> Reach:
    """How far requests may go."""
    found = view.get(Reaching, "", _NAME)
    return found.reach if found is not None else EVERYWHERE


def refusal(text: str, *, loopback: bool) -> str | None:
    """Why nothing is sent to an address, in a few words; None if it may be. The API server has checked that it is one, a bus has not."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "is no address"
    within = getattr(address, "ipv4_mapped", None) or address
    if within in _METADATA:
        return "is a cloud's metadata"
    if within.is_loopback:
        return None if loopback else "is loopback"
    if within.is_link_local:
        return "is link-local"
    return (
        "is nobody's address"
        if within.is_multicast or within.is_unspecified or (within.is_reserved and within.version == 4)
        else None
    )
