"""Emergency: when the stand-by Service of an Ingress takes its requests.

An operator switches an Ingress by a key of one ConfigMap, so that it is a matter of record, holds for all edges, and outlives every one of
our parts. An Ingress in automatic mode switches each backend that has no ready endpoint, in the same step in which the edge learns of that.
What has to do with time (too many failures, how long a recovered backend must be well) each edge finds out by itself (`judge.py`) and puts
into the store as a local object.

    namespace.ingress: {"reason": "db is being moved", "by": "ann", "since": "2026-11-24T02:15:00Z"}

By itself nothing is switched to a stand-by without ready endpoints. An operator's word holds in any case. While nobody has looked up yet
where a Service of type ExternalName leads, it is as good as one with endpoints: nginx may have its last ones.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from common.contracts.objects import Ingress, Projection, Service
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.store import Derived, Reads
from nginx_config_renderer.annotations import wishes
from nginx_config_renderer.derive.backends import find_port, live_endpoints
from nginx_config_renderer.derive.classes import Class, belongs
from nginx_config_renderer.derive.external import awaits_lookup
from nginx_config_renderer.derive.indexes import BY_SWITCH, own_backends, standby_key
from nginx_config_renderer.model import BackendKey, Emergency, IngressKey
from nginx_config_renderer.policy import USUAL

EVERYTHING: Final = "*"
_LONGEST_REASON: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Tripped(Projection):
    """What this edge found out about an Ingress: backend → why it gets no requests; EVERYTHING for all. No bus carries it."""

    resource: ClassVar = Resource("edge.seaway.dev", "tripped")
    api_version: ClassVar = "edge.seaway.dev/v1"
    kind: ClassVar = "Tripped"

    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with an Ingress that has a stand-by: which backends get no requests, and why; which have no ready endpoint."""

    emergency: Emergency
    diverted: tuple[tuple[BackendKey, str], ...] = ()
    unready: tuple[BackendKey, ...] = ()


def diverted(view: Reads, switches: ObjectRef, ingress: Ingress, emergency: Emergency | None, backend: BackendKey) -> str | None:
    """Why requests for `backend` go to the stand-by; None if they do not."""
    if emergency is None:
        return None
    said = _said(view, switches, ingress)
    if said is not None or not emergency.auto:
        return said
    tripped = view.get(Tripped, ingress.metadata.namespace, ingress.metadata.name)
    reasons = tripped.reasons if tripped is not None else {}
    why = reasons.get(EVERYTHING) or reasons.get(str(backend))
    if why is None and not is_live(view, backend):
        why = f"Service {backend.namespace}/{backend.service} has no ready endpoint"
    return why if why is not None and is_live(view, standby_key(backend, emergency.service, emergency.port)) else None


def is_live(view: Reads, backend: BackendKey) -> bool:
    """Whether any endpoint takes requests, or may do, for all that is known."""
    service = view.get(Service, backend.namespace, backend.service)
    port = find_port(service, backend.port, "TCP") if service is not None else None
    if service is None or port is None:
        return False
    return bool(live_endpoints(view, service, port)) or awaits_lookup(view, service)


def standings(ours: Class, switches: ObjectRef) -> Callable[[Reads, IngressKey], Derived[Standing]]:
    """How it stands with each of our Ingresses that has a stand-by. What is switched is told."""

    def derive(view: Reads, key: IngressKey) -> Derived[Standing]:
        ingress = view.get(Ingress, key.namespace, key.name)
        if ingress is None or belongs(view, ours, ingress) is not True:
            return Derived(None)
        emergency = wishes(ingress, USUAL).emergency
        if emergency is None:
            return _switched_in_vain(view, switches, ingress)
        found = sorted(set(own_backends(ingress)))
        why = [(backend, diverted(view, switches, ingress, emergency, backend)) for backend in found]
        gone = tuple((backend, reason) for backend, reason in why if reason is not None)
        problems = (_told(ingress, emergency, gone),) if gone else ()
        unready = tuple(backend for backend in found if emergency.auto and not is_live(view, backend))
        return Derived(Standing(emergency, gone, unready), problems)

    return derive


def _told(ingress: Ingress, emergency: Emergency, gone: tuple[tuple[BackendKey, str], ...]) -> Problem:
    which = ", ".join(str(backend) for backend, _ in gone)
    why = "; ".join(sorted({reason for _, reason in gone}))
    return Problem(ingress.ref, "EmergencyService", f"requests for {which} go to the stand-by Service {emergency.service}: {why}")


def _switched_in_vain(view: Reads, switches: ObjectRef, ingress: Ingress) -> Derived[Standing]:
    if _said(view, switches, ingress) is None:
        return Derived(None)
    mend = "annotate it with seaway.dev/emergency-service, or take the switch back with `seaway failover off`"
    return Derived(None, (Problem(ingress.ref, "NoEmergencyService", f"it was switched, and names no stand-by Service; {mend}"),))


def switch_key(ingress: IngressKey) -> str:
    """The key of an Ingress in the ConfigMap. A namespace has no dots (RFC 1123 label), so it can be told from the name."""
    return f"{ingress.namespace}.{ingress.name}"


def _said(view: Reads, switches: ObjectRef, ingress: Ingress) -> str | None:
    """What an operator said about `ingress`; None if nothing."""
    key = switch_key(IngressKey(ingress.metadata.namespace, ingress.metadata.name))
    for found in view.by(BY_SWITCH, (switches.namespace, switches.name, key)):
        return _sentence(found.data[key])
    return None


def _sentence(text: str) -> str:
    """A switch for people. Whatever stands there, somebody meant it."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    said = data if isinstance(data, dict) else {"reason": text}
    by, reason = (str(said.get(name) or "").strip()[:_LONGEST_REASON] for name in ("by", "reason"))
    return f"switched by {by or 'an operator'}" + (f": {reason}" if reason else "")
