"""What `seaway lb` shows: who has which address and why, where connections go, and what stands in the way.

Pure: it is derived from what is on the bus, by the same functions that the balancer uses, so that what is told is what it would decide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.contracts.objects import Service
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef
from common.pools import Pool
from common.replica import StoredMessage
from haproxy_lb import records
from haproxy_lb.allocation import Allocation, allocate
from haproxy_lb.annotations import Wishes, wishes
from haproxy_lb.book import Granted
from haproxy_lb.claims import Claim, ServiceName
from haproxy_lb.derive.classes import Class
from haproxy_lb.knowledge import Knowledge
from haproxy_lb.model import DEFAULT_TREATMENT, Backend, BackendKey, Endpoint, Frontend, FrontKey
from seaway.wished import Wished

COLUMNS = ("NAMESPACE", "NAME", "ADDRESSES", "PORTS", "POOL", "ENDPOINTS", "TROUBLE")
RESERVATIONS = "reservations"


@dataclass(frozen=True, slots=True)
class Picture:
    """All that the bus says of balanced Services."""

    knowledge: Knowledge
    allocation: Allocation
    wished: Wished

    def problems(self, name: ServiceName) -> list[Problem]:
        """What is wrong with a Service."""
        found = {*self.knowledge.problems, *self.allocation.problems}
        return sorted(problem for problem in found if problem.ref == name.ref)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which Services are meant, and the ConfigMaps of the pools and of the record."""

    cluster: str
    ours: Class
    pools: ObjectRef
    record: ObjectRef


def picture(scope: Scope, messages: Sequence[StoredMessage], wished: Wished, now: int) -> Picture:
    """What the messages of STATE say, beside what stands among the wishes; `now` in seconds since 1970."""
    knowledge = Knowledge(scope.cluster, scope.ours, None, scope.pools, scope.record)
    knowledge.replace(messages, ())
    written = knowledge.configmap(scope.record)
    reservations, _ = records.read(written.data.get(RESERVATIONS, "") if written is not None else "")
    allocation = allocate(knowledge.claims.values(), knowledge.pools, reservations, now, knowledge.node_addresses)
    return Picture(knowledge, allocation, wished)


def rows(seen: Picture) -> Iterator[tuple[str, ...]]:
    """A row a Service."""
    for service in seen.knowledge.services:
        name = _name(service)
        shown = [one.ip for one in service.status.load_balancer.ingress if one.ip]
        has = {str(one.address): one.pool for one in seen.allocation.assignments.get(name, ())}
        endpoints = [one for key in _backends(service) for one in _endpoints(seen, key)]
        yield (
            name.namespace,
            name.name,
            ",".join(shown) or "-",
            ",".join(f"{port.port}/{port.protocol}" for port in service.spec.ports),
            ",".join(dict.fromkeys(has[address] for address in shown if has.get(address))) or "-",
            str(len({one.address for one in endpoints if not one.draining})),
            ", ".join(dict.fromkeys(problem.reason for problem in seen.problems(name))) or "-",
        )


def explain(seen: Picture, name: ServiceName) -> Iterator[str]:
    """All that there is to say of a Service, in lines."""
    service = seen.knowledge.service(name)
    if service is None:
        yield f"{name}: there is no such Service"
        return
    claim = seen.knowledge.claims.get(name)
    if claim is None and service not in seen.knowledge.services:
        named = service.spec.load_balancer_class or "none"
        yield f"{name}: not ours; its type is {service.spec.type}, its loadBalancerClass {named}"
        return
    yield f"{name}: loadBalancerClass {service.spec.load_balancer_class or 'none, and ours by default'}"
    wished = wishes(service)
    has = seen.allocation.assignments.get(name, ())
    for granted in has:
        yield from _address(seen, service, granted, claim)
    if not has:
        yield "  no address"
    if wished.kernel:
        yield "  left to kube-proxy whole, by the annotation seaway.dev/udp"
    for key in () if wished.kernel else _backends(service):
        yield from _port(seen, key)
    yield from _rules(service, seen, wished)
    for problem in seen.problems(name):
        yield f"  {problem.reason}: {problem.message}"


def _address(seen: Picture, service: Service, granted: Granted, claim: Claim | None) -> Iterator[str]:
    pool = seen.knowledge.pools.named(granted.pool) if seen.knowledge.pools is not None else None
    asked = claim is not None and granted.address in claim.requested
    why = "it asks for it" if asked else _why(pool, claim)
    yield f"  address {granted.address}, of pool {granted.pool or '(unknown)'}: {why}"
    shown = any(one.ip == str(granted.address) for one in service.status.load_balancer.ingress)
    yield f"    in its status: {'yes' if shown else 'not yet'}"
    wish = seen.wished.wish
    wanted = next((one for one in wish.addresses if one.ip == str(granted.address)), None) if wish else None
    if wanted is None:
        yield "    asked of the nodes: not yet"
    else:
        others = [user for user in wanted.services if user != str(_name(service))]
        yield f"    asked of the nodes: yes{', shared with ' + ', '.join(others) if others else ''}"
    for node, held in (holders := seen.wished.holders.get(str(granted.address), {})).items():
        silent = "; that node is silent now" if seen.wished.silent(node) else ""
        yield f"    held by node {node}, in instance {held.instance}, since {held.since}{silent}"
    if not holders:
        yield "    held by no node that is known here"
    for port, owner in granted.refused:
        yield f"    port {port} there belongs to {owner}"


def _why(pool: Pool | None, claim: Claim | None) -> str:
    if pool is None or claim is None:
        return "it has it already"
    if claim.pool == pool.name:
        return "it asks for this pool"
    limits = [
        *(["namespaces"] if pool.namespaces or pool.namespace_selectors else []),
        *(["Services"] if pool.service_selectors else []),
    ]
    who = f"permits it by its {' and '.join(limits)}" if limits else "permits every Service"
    return f"the pool has priority {pool.priority} and {who}"


def _port(seen: Picture, key: BackendKey) -> Iterator[str]:
    fronts = [str(front) for front, one in sorted(_fronts(seen).items()) if one.backend == key]
    yield f"  port {key.port}: {', '.join(fronts) or 'answered nowhere'}"
    endpoints = _endpoints(seen, key)
    for one in endpoints:
        yield f"    {one.address}:{one.port}{' on ' + one.node if one.node else ''}, {_state(seen, key, one)}"
    if not endpoints:
        yield "    no endpoint: connections are refused; is a pod of the Service ready?"


def _state(seen: Picture, key: BackendKey, one: Endpoint) -> str:
    """How an endpoint is, as far as balancers have told of it."""
    if one.draining:
        return "drained"
    if not seen.wished.balancers:
        return "in use; no balancer tells how it is"
    where = f"[{one.address}]" if ":" in one.address else one.address
    unwell = seen.wished.unwell(key.namespace, key.service, key.port, f"{where}:{one.port}")
    return f"does not answer {', '.join(unwell)}" if unwell else "in use, well"


def _rules(service: Service, seen: Picture, wished: Wishes) -> Iterator[str]:
    sources = sorted({one for front in _fronts(seen).values() if front.backend in _backends(service) for one in front.sources})
    if sources:
        yield f"  only from {', '.join(sources)}"
    if service.spec.external_traffic_policy == "Local":
        yield f"  endpoints of the own node{', others where it has none' if wished.fallback else ' only'}"
    treatment = wished.treatment
    for field in ("balance", "send_proxy", "accept_proxy", "max_connections", "rate", "check", "timeouts"):
        value = getattr(treatment, field)
        if value != getattr(DEFAULT_TREATMENT, field):
            yield f"  {field.replace('_', ' ')}: {', '.join(value) if isinstance(value, tuple) else value}"
    if service.spec.session_affinity == "ClientIP":
        yield "  a client's address stays with its endpoint"


def _fronts(seen: Picture) -> dict[FrontKey, Frontend]:
    return dict(seen.knowledge.wanted.frontends)


def _backends(service: Service) -> list[BackendKey]:
    namespace, name = service.metadata.namespace, service.metadata.name
    return [BackendKey(namespace, name, port.port) for port in service.spec.ports if port.protocol == "TCP"]


def _endpoints(seen: Picture, key: BackendKey) -> tuple[Endpoint, ...]:
    return seen.knowledge.backends.get(key, Backend(key)).endpoints


def _name(service: Service) -> ServiceName:
    return ServiceName(service.metadata.namespace, service.metadata.name)
