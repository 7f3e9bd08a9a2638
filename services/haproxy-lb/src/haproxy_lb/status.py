"""Status: what a Service shows in `.status.loadBalancer.ingress`, where users and tools such as external-dns read its addresses.

`ipMode: Proxy` keeps kube-proxy from taking connections to the address itself, past HAProxy (KEP-1860); a Service that is left to the
kernel shows `VIP`. Each port is shown, and one that is not served with the reason (v1 PortStatus; a foreign reason has a prefix).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from common.contracts.objects import Service
from haproxy_lb.annotations import wishes
from haproxy_lb.book import Granted
from haproxy_lb.claims import Port
from haproxy_lb.derive.indexes import PROXY, VIP

PORT_TAKEN: Final = "seaway.dev/PortTaken"
NOT_SUPPORTED: Final = "seaway.dev/ProtocolNotSupported"


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """What the status of one Service must be."""

    service: Service
    ingress: tuple[dict[str, Any], ...]

    @property
    def status(self) -> dict[str, Any]:
        """As the API server takes it."""
        return {"loadBalancer": {"ingress": list(self.ingress)}}


def status_write(service: Service, granted: tuple[Granted, ...]) -> StatusWrite | None:
    """What has to be written so that `service` shows what it has; None if it does."""
    kernel = wishes(service).kernel
    wanted = tuple(_ingress(service, one, kernel=kernel) for one in granted)
    return StatusWrite(service, wanted) if tuple(_shown(service)) != wanted else None


def _ingress(service: Service, granted: Granted, *, kernel: bool) -> dict[str, Any]:
    refused = {port for port, _ in granted.refused}
    ports = [_port(Port(port.protocol, port.port), refused, kernel=kernel) for port in service.spec.ports]
    return {"ip": str(granted.address), "ipMode": VIP if kernel else PROXY, "ports": ports}


def _port(port: Port, refused: set[Port], *, kernel: bool) -> dict[str, Any]:
    shown = {"port": port.number, "protocol": port.protocol}
    if port.protocol != "TCP" and not kernel:
        return {**shown, "error": NOT_SUPPORTED}
    return {**shown, "error": PORT_TAKEN} if port in refused else shown


def _shown(service: Service) -> Iterator[dict[str, Any]]:
    for one in service.status.load_balancer.ingress:
        ports = [
            {"port": port.port, "protocol": port.protocol, **({"error": port.error} if port.error else {})} for port in one.ports
        ]
        if one.hostname:
            yield {"hostname": one.hostname}  # nothing of ours
        else:
            yield {"ip": one.ip, "ipMode": one.ip_mode, "ports": ports}
