"""Status: the addresses that each of our Ingresses should show in `.status.loadBalancer` (networking.k8s.io/v1 IngressLoadBalancerStatus).

Users, and tools such as external-dns, read there where an Ingress is served. Only what differs is written.
"""

import ipaddress
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.contracts.objects import Ingress, Service
from common.contracts.refs import ObjectRef

MOST: Final = 1000  # Ingresses that are remembered one by one


class Unshown:
    """The Ingresses whose status may have to be written: those that changed since somebody looked, or all that there are."""

    def __init__(self) -> None:
        self._refs: set[ObjectRef] = set()
        self._all = True

    def add(self, refs: Collection[ObjectRef]) -> None:
        """These changed."""
        if not self._all:
            self._refs.update(refs)
        if len(self._refs) > MOST:
            self.add_all()

    def add_all(self) -> None:
        """Any may show something else than it should."""
        self._refs.clear()
        self._all = True

    def take(self, everything: Callable[[], Iterable[ObjectRef]]) -> tuple[ObjectRef, ...]:
        """Those, or `everything`. They count as looked at."""
        found = tuple(everything()) if self._all else tuple(self._refs)
        self._refs.clear()
        self._all = False
        return found


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """A status that has to be written."""

    ref: ObjectRef
    status: dict[str, Any]


def writes(ingresses: Iterable[Ingress], addresses: Sequence[str]) -> tuple[StatusWrite, ...]:
    """What has to be written so that `ingresses` show `addresses`; nothing while no address is known."""
    if not addresses:
        return ()
    wanted = [{"ip": address} if _is_ip(address) else {"hostname": address} for address in sorted(set(addresses))]
    status = {"loadBalancer": {"ingress": wanted}}
    return tuple(StatusWrite(ingress.ref, status) for ingress in ingresses if _shown(ingress) != wanted)


def addresses_of(service: Service | None) -> tuple[str, ...]:
    """Where a Service is reached from outside, as ingress-nginx reads it: a balancer's addresses, or what comes next to it."""
    if service is None:
        return ()
    spec = service.spec
    if spec.type == "ExternalName":
        return (spec.external_name,) if spec.external_name else ()
    if spec.type == "LoadBalancer":
        given = (one.ip or one.hostname for one in service.status.load_balancer.ingress)
        return tuple(sorted({*spec.external_ips, *filter(None, given)}))
    own = (spec.cluster_ip,) if spec.cluster_ip not in {"", "None"} else ()
    return tuple(sorted(spec.external_ips)) or own


def _shown(ingress: Ingress) -> list[dict[str, str]]:
    return [{"ip": one.ip} if one.ip else {"hostname": one.hostname} for one in ingress.status.load_balancer.ingress]


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
