"""External: Services that lead to a name outside of the cluster (v1 Service of type ExternalName).

The name is looked up by the edge, again and again as its records say, and the addresses are endpoints like others. A name is nobody's word
for where it leads, today or later, so each address is held against `reach.py` every time. A port that the Service does not have is taken as
it is where it has none at all, as ingress-nginx does.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.contracts.objects import Service
from common.contracts.objects.networking import ServicePort
from common.store import Derived, Reads
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.indexes import BY_EXTERNAL_NAME, BY_USED_SERVICE, external_name
from nginx_config_renderer.derive.reach import Reach, reach_of, refusal
from nginx_config_renderer.model import Endpoint
from nginx_config_renderer.resolved import Resolved

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)
_LONGEST: Final = 253


@dataclass(frozen=True, slots=True)
class Outside:
    """Where a port of such a Service is served, and what is wrong with it: a reason and a sentence, if anything."""

    endpoints: tuple[Endpoint, ...] = ()
    reason: str = ""
    fault: str = ""


def is_external(service: Service) -> bool:
    """Whether it leads to a name."""
    return service.spec.type == "ExternalName"


def awaits_lookup(view: Reads, service: Service) -> bool:
    """Whether a Service leads to a name that must be looked up, and nobody has said yet what it means."""
    name = external_name(service)
    if not is_external(service) or not reach_of(view).external or not may_be_asked(name):
        return False
    found = view.get(Resolved, "", name)
    return found is None or not found.known


def outside(view: Reads, service: Service, port: ServicePort) -> Outside:
    """Where a port of a Service is served that leads to a name."""
    where = f"Service {service.metadata.namespace}/{service.metadata.name}"
    reach, name = reach_of(view), external_name(service)
    if not reach.external:
        return Outside(
            (), "ExternalNameOff", f"{where} leads to {name[:80]}, and the edge follows no names; name a Service with endpoints"
        )
    if not may_be_asked(name):
        return Outside((), "BadExternalName", f"{where}: spec.externalName {name[:80]!r} is no name of another host; write one")
    found = view.get(Resolved, "", name)
    if found is None:
        return Outside()
    number = port.target_port if isinstance(port.target_port, int) and port.target_port else port.port
    refused = {address: why for address in found.addresses if (why := _refusal(address, number, found, reach)) is not None}
    good = tuple(sorted(Endpoint(address, number) for address in found.addresses if address not in refused))
    if refused:
        shown = ", ".join(f"{address} ({why})" for address, why in sorted(refused.items())[:3])
        return Outside(good, "AddressRefused", f"{where}: {name} leads to {shown}, where nothing is sent; let it lead elsewhere")
    return Outside(good, "NameUnresolved", f"{where}: {found.problem}") if found.problem else Outside(good)


def _refusal(address: str, port: int, found: Resolved, reach: Reach) -> str | None:
    if address in found.own and port in reach.reserved:
        return f"is this machine, whose port {port} is the edge's own"
    return refusal(address, loopback=False)


def may_be_asked(name: str) -> bool:
    """Whether somebody else can be meant by `name`."""
    local = name == "localhost" or name.endswith((".localhost", ".localdomain"))
    return len(name) <= _LONGEST and _HOST.fullmatch(name) is not None and not local


def names(ours: Class) -> Callable[[Reads, str], Derived[bool]]:
    """The derivation of the names that must be looked up: those of Services that our Ingresses send requests to."""

    def derive(view: Reads, name: str) -> Derived[bool]:
        if not reach_of(view).external or not may_be_asked(name):
            return Derived(None)
        services = ((one.metadata.namespace, one.metadata.name) for one in view.by(BY_EXTERNAL_NAME, name))
        users = (ingress for service in services for ingress in view.by(BY_USED_SERVICE, service))
        return Derived(True if any(belongs(view, ours, ingress) is True for ingress in users) else None)

    return derive
