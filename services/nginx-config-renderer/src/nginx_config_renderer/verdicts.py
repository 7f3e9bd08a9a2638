"""Verdicts: what became of each Ingress on this edge, and who else asks for a host. Pure.

An Ingress is served if any route of the tables is its own; the rest is told by its problems. What nginx has is known by the ledger.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import TypeAlias

from common.contracts.edge import PAGE, Claimant, IngressState, Listing, Page, State
from common.contracts.objects import Ingress
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef
from nginx_config_renderer.derive.classes import ANNOTATION
from nginx_config_renderer.derive.indexes import ANY_HOST, hosts
from nginx_config_renderer.ledger import Ledger
from nginx_config_renderer.model import HostRoutes, IngressKey

Mine: TypeAlias = Callable[[Iterable[Ingress]], Iterator[Ingress]]

_SHADOWED = "RouteTaken"
_HARMLESS = frozenset({"EmergencyService"})  # told as a problem, while all is served


def by_object(problems: Iterable[Problem]) -> Mapping[ObjectRef, Sequence[Problem]]:
    """Problems, by whom they are about."""
    found: dict[ObjectRef, list[Problem]] = defaultdict(list)
    for problem in problems:
        found[problem.ref].append(problem)
    return found


def routed(tables: Mapping[str, HostRoutes], ingress: Ingress) -> bool:
    """Whether any route is this Ingress's own."""
    key = IngressKey(ingress.metadata.namespace, ingress.metadata.name)
    of_hosts = (tables[host] for host in {*hosts(ingress), ANY_HOST} if host in tables)
    return any(route.ingress == key for table in of_hosts for _, route in (*table.exact, *table.prefixes))


def state(version: str, problems: Sequence[Problem], *, has_routes: bool) -> State:
    """See `IngressState`."""
    if not version:
        return "waiting"
    grave = {problem.reason for problem in problems} - _HARMLESS
    if has_routes or not grave:
        return "serving"
    return "shadowed" if grave == {_SHADOWED} else "rejected"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All that they are made from: the hosts' table, what is wrong with which object, and what nginx has."""

    tables: Mapping[str, HostRoutes]
    problems: Mapping[ObjectRef, Sequence[Problem]]
    ledger: Ledger

    def of(self, ingress: Ingress) -> IngressState:
        """What became of an Ingress of ours."""
        held, newest = self.ledger.held(ingress.ref), self.ledger.newest(ingress.ref)
        return IngressState(
            namespace=ingress.metadata.namespace,
            name=ingress.metadata.name,
            state=self._state(ingress),
            version=held,
            newest=newest if newest != held else "",
            hosts=tuple(host or "*" for host in dict.fromkeys(hosts(ingress))),
            problems=tuple(problem.message for problem in self.problems.get(ingress.ref, ())),
        )

    def page(self, ingresses: Iterable[Ingress], ours: Mine, asked: Listing, instance: str) -> Page:
        """Those of everybody's `ingresses` that are `ours` and asked for."""
        named = ((name_of(one), one) for one in ingresses if asked.namespace in {"", one.metadata.namespace})
        left = sorted((pair for pair in named if pair[0] > asked.after), key=itemgetter(0))
        mine = list(islice(ours(one for _, one in left), PAGE + 1))  # as few as can be are looked at
        return Page(instance=instance, ingresses=tuple(map(self.of, mine[:PAGE])), more=len(mine) > PAGE)

    def claimant(self, ingress: Ingress, found: bool | Problem) -> Claimant:  # noqa: FBT001 what `belongs` says
        """How it stands with an Ingress that names a host, of whatever class."""
        ours = found is True
        told = (found,) if isinstance(found, Problem) else self.problems.get(ingress.ref, ()) if ours else ()
        return Claimant(
            namespace=ingress.metadata.namespace,
            name=ingress.metadata.name,
            ours=ours,
            state=self._state(ingress) if ours else None,
            version=self.ledger.held(ingress.ref) if ours else "",
            class_name=ingress.metadata.annotations.get(ANNOTATION) or ingress.spec.ingress_class_name or "",
            problems=tuple(dict.fromkeys(problem.message for problem in told)),
        )

    def _state(self, ingress: Ingress) -> State:
        told = self.problems.get(ingress.ref, ())
        return state(self.ledger.held(ingress.ref), told, has_routes=routed(self.tables, ingress))


def name_of(ingress: Ingress) -> str:
    """Namespace and name, as pages are ordered by them."""
    return f"{ingress.metadata.namespace}/{ingress.metadata.name}"


def wildcards(host: str) -> tuple[str, ...]:
    """What Ingresses may call a host: itself, its wildcard, any host."""
    parent = host.partition(".")[2]
    return (host, f"*.{parent}", ANY_HOST) if parent else (host, ANY_HOST)
