"""`seaway vip`: which node holds which floating address, and what keeps the others from it."""

from typing import Annotated

import typer

from common.bus.settings import BusSettings
from common.contracts.vips import SERVICE
from seaway import floating, replica
from seaway.commands import CommandError, Data, Nats, Nkey, TlsCa, bus_of, run
from seaway.hearing import clusters, hear
from seaway.view import table
from seaway.wished import Wished

vip_app = typer.Typer(help="Floating addresses: which node holds them, and why.", no_args_is_help=True)

OfCluster = Annotated[str, typer.Option("--cluster", help="The cluster, where the bus has several.")]


@vip_app.command("list")
def show(
    cluster: OfCluster = "",
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """List floating addresses with who wants and who holds them, in which VRRP instance, and since when."""
    run(_addresses(bus_of(data, nats, nkey, tls_ca), cluster))


@vip_app.command("nodes")
def show_nodes(
    cluster: OfCluster = "",
    data: Data = None,
    nats: Nats = None,
    nkey: Nkey = None,
    tls_ca: TlsCa = None,
) -> None:
    """List the nodes that may hold addresses: when they were heard, what they hold, and what keeps them from it."""
    run(_nodes(bus_of(data, nats, nkey, tls_ca), cluster))


async def _addresses(settings: BusSettings, cluster: str) -> None:
    typer.echo(table(floating.addresses(await _heard(settings, cluster)), floating.ADDRESSES))


async def _nodes(settings: BusSettings, cluster: str) -> None:
    typer.echo(table(floating.nodes(await _heard(settings, cluster)), floating.NODES))


async def _heard(settings: BusSettings, cluster: str) -> Wished:
    async with replica.reach(settings) as bus:
        seen = await hear(bus, _chosen(cluster, await clusters(bus, SERVICE)))
    for fault in seen.faults:
        typer.echo(f"seaway: {fault}", err=True)
    return seen


def _chosen(cluster: str, known: list[str]) -> str:
    if cluster and cluster not in known:
        raise CommandError(f"no node of cluster {cluster!r} has spoken; the bus knows {', '.join(known) or 'none'}")
    if len(known) > 1 and not cluster:
        raise CommandError(f"the bus has several clusters; name one with --cluster: {', '.join(known)}")
    if not known:
        raise CommandError("no node has spoken of floating addresses yet; does keepalived-vip run?")
    return cluster or known[0]
