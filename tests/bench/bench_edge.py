"""Endpoint change and new Ingress to the first new answer, against Traefik.

One API server with its sites, one edge at a time on it, the same client and the same loop for all. Endpoint changes are one PATCH that
moves a site to three other addresses; new routes are one POST of an Ingress whose Service and endpoints are there. One change follows
another, each at another site, after the one before was seen.

The figures with goals begin when the API server has answered the change, for until then no edge can know of it; "since sent" includes the
API server's own time. Traefik's default is to gather changes for two seconds after one was applied; a single change after a calm would
arrive sooner than these do, and no change of a busy cluster would. So it is asked fewer times: each costs those seconds.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final

from tests.bench.edges import Edge, seaway, traefik
from tests.bench.effort import Effort
from tests.bench.rows import Row, latency_rows
from tests.bench.visitor import Reaction, Visitor
from tests.bench.world import World, host, served, world

FEWER: Final = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """The reactions of one edge."""

    name: str
    changes: list[Reaction]
    routes: list[Reaction]


async def bench(effort: Effort) -> list[Row]:
    """Seaway against Traefik as it comes and as fast as it can be made."""
    async with world(effort.sites) as place:
        ours = await measure(place, seaway(place), effort)
        fewer = replace(effort, changes=-(-effort.changes // FEWER), routes=-(-effort.routes // FEWER))
        slow = await measure(place, traefik(place), fewer)
        fast = await measure(place, traefik(place, fastest=True), effort)
    return rows(ours, [slow, fast])


async def measure(place: World, starting: AbstractAsyncContextManager[Edge], effort: Effort) -> Measured:
    """Every reaction of one edge."""
    async with starting as edge, Visitor(edge.port) as visitor:
        changes = [await endpoint_change(place, visitor, place.sites[n % len(place.sites)]) for n in range(effort.changes)]
        routes = [await new_route(place, visitor, f"new-{n:05}") for n in range(effort.routes)]
    return Measured(edge.name, changes, routes)


async def endpoint_change(place: World, visitor: Visitor, site: str) -> Reaction:
    """A site is moved to other addresses."""
    moved, move = place.elsewhere(site)
    return await visitor.reaction(host(site), moved, move)


async def new_route(place: World, visitor: Visitor, site: str) -> Reaction:
    """An Ingress is made. It is gone again at the end."""
    await place.add_backend(site)
    try:
        reaction = await visitor.reaction(host(site), served, lambda: place.add_ingress(site))
    finally:
        await place.remove(site)
    await visitor.until(host(site), lambda answer: not served(answer))
    return reaction


def rows(ours: Measured, peers: list[Measured]) -> list[Row]:
    """Our figures beside each peer's."""
    made: list[Row] = []
    for peer in peers:
        for name, mine, theirs, p50, p99 in (
            ("endpoint change", ours.changes, peer.changes, 5, 25),
            ("new Ingress", ours.routes, peer.routes, 10, 50),
        ):
            answered, sent = [r.since_answered for r in mine], [r.since_sent for r in mine]
            their_answered, their_sent = [r.since_answered for r in theirs], [r.since_sent for r in theirs]
            made += latency_rows(name, answered, p50=p50, p99=p99, peer=peer.name, peer_seconds=their_answered)
            made += latency_rows(f"{name}, since sent", sent, peer=peer.name, peer_seconds=their_sent)
    return made
