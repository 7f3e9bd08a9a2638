"""Claims: what each Service of ours asks for. One without a port that we can carry asks for nothing, and is told.

HAProxy carries TCP alone. A Service whose other ports are left to kube-proxy (`seaway.dev/udp: kernel`) is left to it whole: the address
can show one `ipMode` only, and kube-proxy takes all ports of a Service at an address with `ipMode: VIP` (KEP-1860).
"""

from collections.abc import Callable, Iterator
from typing import Final

from common.contracts.ip import Address, read_address
from common.contracts.objects import Namespace, Service
from common.contracts.problems import Problem
from common.store import Derived, Reads
from haproxy_lb.annotations import PREFIX, Wishes, wishes
from haproxy_lb.claims import Claim, Port, ServiceName, Shown
from haproxy_lb.derive.classes import Class, belongs

_FAMILIES: Final = {"IPv4": 4, "IPv6": 6}


def claims(ours: Class) -> Callable[[Reads, ServiceName], Derived[Claim]]:
    """The derivation for one class of Services."""

    def derive(view: Reads, name: ServiceName) -> Derived[Claim]:
        service = view.get(Service, name.namespace, name.name)
        if service is None or not belongs(ours, service):
            return Derived(None)
        wished = wishes(service)
        problems = [*wished.problems, *unserved(service, wished)]
        ports = carried(service, kernel=wished.kernel)
        requested, faults = _requested(service, wished)
        problems += faults
        if not ports:
            return Derived(None, tuple(problems))
        namespace = view.get(Namespace, "", name.namespace)
        labels = namespace.metadata.labels if namespace is not None else {}
        return Derived(
            Claim(
                service=name,
                created=service.metadata.creation_timestamp,
                families=families(service),
                ports=ports,
                all_or_none=service.spec.ip_family_policy == "RequireDualStack",
                requested=requested,
                pool=wished.pool,
                sharing=wished.sharing,
                labels=tuple(sorted(service.metadata.labels.items())),
                namespace_labels=tuple(sorted(labels.items())),
                shown=tuple(_shown(service)),
            ),
            tuple(problems),
        )

    return derive


def carried(service: Service, *, kernel: bool) -> frozenset[Port]:
    """The ports that are served at an address of `service`, by HAProxy or by the kernel."""
    return frozenset(Port(port.protocol, port.port) for port in service.spec.ports if kernel or port.protocol == "TCP")


def families(service: Service) -> tuple[int, ...]:
    """The families that `service` has, in the order of its wish. The API server fills `spec.ipFamilies` in."""
    named = tuple(dict.fromkeys(_FAMILIES[one] for one in service.spec.ip_families if one in _FAMILIES))
    return named or tuple(dict.fromkeys(address.version for address in _addresses(service.spec.cluster_ips))) or (4,)


def unserved(service: Service, wished: Wishes) -> Iterator[Problem]:
    """The ports that nobody serves."""
    if wished.kernel:
        return
    for port in service.spec.ports:
        if port.protocol != "TCP":
            text = f"port {port.port} is of {port.protocol}, and HAProxy carries TCP alone; take it out"
            text += f", or leave the Service to kube-proxy by the annotation {PREFIX}udp: kernel"
            yield Problem(service.ref, "ProtocolNotSupported", text)


def _requested(service: Service, wished: Wishes) -> tuple[tuple[Address, ...], list[Problem]]:
    """The addresses that `service` names, in its annotation or in its spec, of the families that it has."""
    field = service.spec.load_balancer_ip
    in_field = tuple(_addresses((field,)))
    if field and not in_field:
        return wished.requested, [_bad(service, f"spec.loadBalancerIP is {field[:80]!r}; write an address, or leave it out")]
    if in_field and wished.requested and not {*in_field} <= {*wished.requested}:
        names = ", ".join(map(str, wished.requested))
        text = f"spec.loadBalancerIP names {field} and the annotation {PREFIX}load-balancer-ips {names}; keep one of them"
        return (), [_bad(service, text)]
    asked = wished.requested or in_field
    has = families(service)
    strange = [address for address in asked if address.version not in has]
    text = "{} is asked for, and IPv{} is not among spec.ipFamilies; add it there, or ask for another address"
    faults = [_bad(service, text.format(address, address.version)) for address in strange]
    return tuple(address for address in asked if address.version in has), faults


def _bad(service: Service, text: str) -> Problem:
    return Problem(service.ref, "BadRequest", text)


def _shown(service: Service) -> Iterator[Shown]:
    for shown in service.status.load_balancer.ingress:
        for address in _addresses((shown.ip,)):
            yield Shown(address, frozenset(Port(port.protocol, port.port) for port in shown.ports if not port.error))


def _addresses(texts: tuple[str, ...]) -> Iterator[Address]:
    for text in texts:
        try:
            yield read_address(text)
        except ValueError:
            continue
