"""`seaway vip`: which node holds which floating address, and what keeps the others from it."""

from typing import Annotated, Final

import typer

from common.bus.protocol import Bus
from common.bus.settings import BusSettings
from common.bus.streams import WANTED
from common.codec import CodecError, decode
from common.contracts import subjects
from common.contracts.vips import PLAN, SERVICE, VipError, VipNode, VipPlan, read_vip
from seaway import floating, replica
from seaway.commands import CommandError, Data, Nats, Nkey, TlsCa, bus_of, run
from seaway.floating import Heard, Picture
from seaway.view import table

_SAID: Final = f"{subjects.WANTED}.*.{subjects.encode(SERVICE)}.>"

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
    typer.echo(table(floating.addresses(await _picture(settings, cluster)), floating.ADDRESSES))


async def _nodes(settings: BusSettings, cluster: str) -> None:
    typer.echo(table(floating.nodes(await _picture(settings, cluster)), floating.NODES))


async def _picture(settings: BusSettings, cluster: str) -> Picture:
    async with replica.reach(settings) as bus:
        return await _read(bus, cluster)


async def _read(bus: Bus, cluster: str) -> Picture:
    """What nodes said last. Each is one message, read by itself: an operator may look, and follows nothing here."""
    found = sorted(await bus.subjects(WANTED.name, _SAID))
    clusters = sorted({subjects.decode(subject.split(".")[2]) for subject in found})
    if cluster and cluster not in clusters:
        raise CommandError(f"no node of cluster {cluster!r} has spoken; the bus knows {', '.join(clusters) or 'none'}")
    if len(clusters) > 1 and not cluster:
        raise CommandError(f"the bus has several clusters; name one with --cluster: {', '.join(clusters)}")
    if not clusters:
        raise CommandError("no node has spoken of floating addresses yet; does keepalived-vip run?")
    plan, nodes = VipPlan(instance="", revision=0), {}
    for subject in found:
        if subject.split(".")[2] != subjects.encode(cluster or clusters[0]):
            continue
        last = await bus.get_last(WANTED.name, subject)
        if last is None or last.gone:
            continue
        try:
            event = decode(last.headers, last.body)
            if subject.endswith(f".{PLAN}"):
                plan = read_vip(VipPlan, event)
            else:
                said = read_vip(VipNode, event)
                nodes[said.node] = Heard(said, last.time)
        except (CodecError, VipError) as error:
            typer.echo(f"seaway: {subject} cannot be read: {error}", err=True)
    return Picture(plan, nodes, replica.now())
